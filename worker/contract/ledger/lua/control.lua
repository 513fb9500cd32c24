-- Cancel, pause or resume a job: sets a flag that takes effect when outcomes are next recorded. O(window), whatever the
-- job's size.
-- ARGV: cancel | pause | resume | abandon, reason, seconds (for `abandon`)
--   abandon: end a job that is being listed and whose producer has been silent for that many seconds
-- -> {the resulting status, 1 when this call changed it}; the status is '' for an unknown job
local action, reason = ARGV[1], ARGV[2]
local status = redis.call('HGET', JOB, 'status')
if not status then return {'', 0} end

if action == 'cancel' then
  if status == 'running' or status == 'paused' then
    stop('cancelled', reason)
    return {'stopping', 1}
  end
  if status == 'listing' then
    redis.call('HSET', JOB, 'status', 'cancelled', 'ending', 'cancelled', 'reason', reason, 'finished_at', now())
    return {'cancelled', 1}
  end
elseif action == 'abandon' and status == 'listing' then
  if now() - tonumber(redis.call('HGET', JOB, 'beat_at') or 0) >= tonumber(ARGV[3]) then
    redis.call('HSET', JOB, 'status', 'cancelled', 'ending', 'cancelled', 'reason', reason, 'finished_at', now())
    return {'cancelled', 1}
  end
elseif action == 'pause' and status == 'running' then
  redis.call('HSET', JOB, 'status', 'paused')
  return {'paused', 1}
elseif action == 'resume' and status == 'paused' then
  redis.call('HSET', JOB, 'status', 'running')
  return {'running', 1}
end
return {status, 0}
