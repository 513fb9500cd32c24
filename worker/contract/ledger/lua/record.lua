-- Record outcomes of images of one chunk. Idempotent: a counter moves only when the state of an image changes. An image
-- that is ok or skipped keeps that state; a failed one can still become ok (a redelivered copy succeeded).
-- ARGV: chunk, epoch, first image, images, failures to keep, worker, then for each outcome: index, state, code, JSON
-- -> {1 when this call completed the job, 1 when the worker shall run further images of the chunk}
local chunk, epoch, first, count, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local worker = ARGV[6]

local job = redis.call('HMGET', JOB, 'status', 'epoch', 'total', 'max_failed', 'max_failed_percent', 'pardoned',
  'judged_after', 'store_retry_at')
local status, total = job[1], tonumber(job[3] or 0)
if status ~= 'running' and status ~= 'paused' and status ~= 'stopping' then return {0, 0} end
-- A late worker of an earlier epoch does not count; an output that it wrote is found to be up to date.
if job[2] ~= epoch then return {0, 0} end

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

local progress = false
for i = 7, #ARGV, 4 do
  local index, new = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local old = state(index)
  if index < total and (old == 0 or (old > SKIPPED and new <= SKIPPED)) then
    set_state(index, new)
    redis.call('HINCRBY', JOB, COUNTER[new], 1)
    if old > 0 then redis.call('HINCRBY', JOB, COUNTER[old], -1) end
    if old == FAILED or old == DEAD then remove_failure(index) end
    if new > SKIPPED then
      redis.call('HINCRBY', JOB, 'code:' .. ARGV[i + 2], 1)
      if redis.call('LLEN', FAILURES) < kept then redis.call('RPUSH', FAILURES, ARGV[i + 3]) end
    end
    redis.call('XADD', LOG, '*', 'o', ARGV[i + 3])
    progress = true
  end
end

if progress and job[8] then redis.call('HDEL', JOB, 'store_retry_at', 'store_pauses', 'store_bucket') end  -- S3 is back

local time = now()
local holder = redis.call('HGET', RUNNING, chunk)
-- The worker was frozen for long and the chunk now belongs to another: its outcomes count, but it must stop.
local replaced = holder and holder ~= worker
if all_set(first, count) then
  forget(chunk, first, count)
elseif holder and not replaced then
  redis.call('ZADD', OUTSTANDING, time, chunk)
  -- Attempts count starts without progress: a chunk that progresses each time does not kill its workers.
  if progress then redis.call('HSET', ATTEMPTS, chunk, 1) end
end

-- The reason when there are too many failures; nil otherwise.
local function too_many(finished)
  local bad = redis.call('HMGET', JOB, 'failed', 'dead')
  bad = tonumber(bad[1] or 0) + tonumber(bad[2] or 0) - tonumber(job[6] or 0)
  local before = tonumber(job[7] or 0)
  local most, percent = tonumber(job[4] or ''), tonumber(job[5] or '')
  if most and bad > most then return bad .. ' images failed, at most ' .. most .. ' were allowed' end
  -- The share is checked from 100 images on, in a small job from a tenth of it: one failure of one image is 100 %.
  finished = finished - before
  if percent and finished >= math.min(100, (total - before) / 10) and bad * 100 > percent * finished then
    return bad .. ' of ' .. finished .. ' images failed, at most ' .. percent .. ' % were allowed'
  end
end

local finished = done()
local why = status ~= 'stopping' and too_many(finished)
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
