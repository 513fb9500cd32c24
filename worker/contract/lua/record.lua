-- Outcomes of images of one chunk. Idempotent: a counter moves only when an image's state does, an image that is
-- ok or skipped stays so, and a failed one can still become ok (a redelivered copy got through).
-- ARGV: chunk, epoch, first image, images, failures kept, then for each outcome: index, state, code, JSON
-- -> {1 when this call completed the job, 1 when the worker shall go on}
local chunk, epoch, first, count, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local job = redis.call('HMGET', JOB, 'status', 'epoch', 'total', 'max_failed', 'max_failed_percent')
local status, total = job[1], tonumber(job[3] or 0)
if status ~= 'running' and status ~= 'paused' and status ~= 'stopping' then return {0, 0} end
local stale, progress = job[2] ~= epoch, false
for i = 6, #ARGV, 4 do
  local index, new = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local old = state(index)
  -- A straggler of an earlier epoch may still report an output that exists, and nothing else.
  if index < total and (old == 0 or (old > SKIPPED and new <= SKIPPED)) and not (stale and new > SKIPPED) then
    set_state(index, new)
    redis.call('HINCRBY', JOB, COUNTER[new], 1)
    if old > 0 then redis.call('HINCRBY', JOB, COUNTER[old], -1) end
    if new > SKIPPED then
      redis.call('HINCRBY', JOB, 'code:' .. ARGV[i + 2], 1)
      if redis.call('LLEN', FAILURES) < kept then redis.call('RPUSH', FAILURES, ARGV[i + 3]) end
    end
    redis.call('XADD', LOG, '*', 'o', ARGV[i + 3])
    progress = true
  end
end

local time = now()
if all_set(first, count) then
  forget(chunk, first, count)
elseif not stale and redis.call('HEXISTS', RUNNING, chunk) == 1 then
  redis.call('ZADD', OUTSTANDING, time, chunk)
  -- Attempts count starts without progress: a chunk that gets further each time is not poison.
  if progress then redis.call('HSET', ATTEMPTS, chunk, 1) end
end

local finished = done()
if finished == total then
  if status == 'stopping' then return {0, 0} end  -- `settle` closes it, as what it was stopped for
  redis.call('HSET', JOB, 'status', 'closing', 'ending', 'finished', 'completed_at', time)
  return {1, 0}
end
if status == 'running' and not stale then
  local bad = redis.call('HMGET', JOB, 'failed', 'dead')
  bad = tonumber(bad[1] or 0) + tonumber(bad[2] or 0)
  local most, percent = tonumber(job[4] or ''), tonumber(job[5] or '')
  -- A share is judged from 100 images on, of a small job from a tenth: one failure of one image is 100 %.
  if most and bad > most then
    stop('stopped', bad .. ' images failed, at most ' .. most .. ' were allowed')
    status = 'stopping'
  elseif percent and finished >= math.min(100, total / 10) and bad * 100 > percent * finished then
    stop('stopped', bad .. ' of ' .. finished .. ' images failed, at most ' .. percent .. ' % were allowed')
    status = 'stopping'
  end
end
return {0, status == 'running' and not stale and 1 or 0}
