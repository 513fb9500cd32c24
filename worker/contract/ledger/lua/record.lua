-- Record outcomes of images of one chunk. Idempotent: a counter moves only when the state of an image changes. An image
-- that is ok or skipped keeps that state; a failed one can still become ok (a redelivered copy succeeded).
-- ARGV: chunk, epoch, first image, images, failures to keep, worker, starts of the chunk as `start` answered, then
--       for each outcome: index, state, code, JSON
-- -> {1 when this call completed the job, 1 when the worker shall run further images of the chunk}
local chunk, epoch, first, count, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local worker, starts = ARGV[6], ARGV[7]

local job = redis.call('HMGET', JOB, 'status', 'epoch', 'total', 'max_failed', 'max_failed_percent', 'pardoned',
  'judged_after', 'store_retry_at', unpack(COUNTER))
local status, total = job[1], tonumber(job[3] or 0)
if status ~= 'running' and status ~= 'paused' and status ~= 'stopping' then return {0, 0} end
-- A late worker of an earlier epoch does not count; an output that it wrote is found to be up to date.
if job[2] ~= epoch then return {0, 0} end
local counts = {}  -- images by outcome, kept up to date below: fewer commands than to read them again
for kind = 1, #COUNTER do counts[kind] = 0 + (job[8 + kind] or 0) end

-- Remove an image that no longer counts as failed from the list of failures and the counts by code. Only the first
-- failures of a job are in that list.
local function remove_failure(index)
  for _, line in ipairs(redis.call('LRANGE', FAILURES, 0, -1)) do
    local read, failure = pcall(cjson.decode, line)
    if read and type(failure) == 'table' and failure.index == index then
      redis.call('LREM', FAILURES, 1, line)
      local code = 'code:' .. tostring(failure.code or '')
      if redis.call('HINCRBY', JOB, code, -1) == 0 then redis.call('HDEL', JOB, code) end
      return
    end
  end
end

-- Commands are most of what an image costs Redis: one reads the states of all images, one writes those that change, one
-- moves each counter. Numbers stay text where they can: Lua writes them with 17 digits.
local reads, writes, moved, now_in = {IMAGES}, {IMAGES}, {}, {}
for i = 8, #ARGV, 4 do
  local n = #reads
  reads[n + 1], reads[n + 2], reads[n + 3] = 'GET', 'u4', '#' .. ARGV[i]
end
local states_before = reads[2] and redis.call('BITFIELD', unpack(reads)) or {}
for i = 8, #ARGV, 4 do
  local index, new = ARGV[i], tonumber(ARGV[i + 1])
  local old = now_in[index] or states_before[(i - 4) / 4]
  if tonumber(index) < total and (old == 0 or (old > SKIPPED and new <= SKIPPED)) then
    local n = #writes
    writes[n + 1], writes[n + 2], writes[n + 3], writes[n + 4] = 'SET', 'u4', '#' .. index, ARGV[i + 1]
    now_in[index] = new
    moved[new] = (moved[new] or 0) + 1
    if old > 0 then moved[old] = (moved[old] or 0) - 1 end
    if old == FAILED or old == DEAD then remove_failure(tonumber(index)) end
    if new > SKIPPED then
      redis.call('HINCRBY', JOB, 'code:' .. ARGV[i + 2], 1)
      if redis.call('LLEN', FAILURES) < kept then redis.call('RPUSH', FAILURES, ARGV[i + 3]) end
    end
    redis.call('XADD', LOG, '*', 'o', ARGV[i + 3])
  end
end
local progress, finished = writes[2], 0
if progress then redis.call('BITFIELD', unpack(writes)) end
for kind, counter in ipairs(COUNTER) do
  local by = moved[kind]
  if by and by ~= 0 then
    redis.call('HINCRBY', JOB, counter, by)
    counts[kind] = counts[kind] + by
  end
  finished = finished + counts[kind]
end

if progress and job[8] then redis.call('HDEL', JOB, 'store_retry_at', 'store_pauses', 'store_bucket') end  -- S3 is back

local clock = redis.call('TIME')
local time = clock[1] .. '.' .. ('000000' .. clock[2]):sub(-6)
local holder = redis.call('HGET', RUNNING, chunk)
-- The worker was frozen for long and the chunk now belongs to another: its outcomes count, but it must stop.
local replaced = holder and holder ~= worker
if all_set(first, count) then
  forget(chunk, first, count)
elseif holder and not replaced then
  redis.call('ZADD', OUTSTANDING, time, chunk)
  -- Attempts count starts without progress: a chunk that progresses each time does not kill its workers.
  if progress and starts ~= '1' then redis.call('HSET', ATTEMPTS, chunk, 1) end
end

-- The reason when there are too many failures; nil otherwise.
local function too_many()
  local bad = counts[FAILED] + counts[DEAD] - tonumber(job[6] or 0)
  local before = tonumber(job[7] or 0)
  local most, percent = tonumber(job[4] or ''), tonumber(job[5] or '')
  if most and bad > most then return bad .. ' images failed, at most ' .. most .. ' were allowed' end
  -- The share is checked from 100 images on, in a small job from a tenth of it: one failure of one image is 100 %.
  local judged = finished - before
  if percent and judged >= math.min(100, (total - before) / 10) and bad * 100 > percent * judged then
    return bad .. ' of ' .. judged .. ' images failed, at most ' .. percent .. ' % were allowed'
  end
end

local why = status ~= 'stopping' and (job[4] or job[5]) and too_many()
if finished == total then
  if status == 'stopping' then return {0, 0} end  -- `settle` closes it with the status it was stopped for
  redis.call('HSET', JOB, 'status', 'closing', 'ending', why and 'stopped' or 'finished', 'completed_at', time)
  if why then redis.call('HSET', JOB, 'reason', why) end
  redis.call('DEL', ATTEMPTS, OUTSTANDING, RUNNING, SUSPECTS, RETURNED)
  return {1, 0}
end
if why and status == 'running' then
  stop('stopped', why)
  status = 'stopping'
end
return {0, status == 'running' and not replaced and 1 or 0}
