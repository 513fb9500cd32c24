-- Prepare an ended job to run images again under a new epoch; messages of the old epoch become stale.
-- ARGV: 1 when failed and dead images will run again
-- -> the new epoch, or nil when the job has not ended
local status = redis.call('HGET', JOB, 'status')
if status == 'reopening' then return tonumber(redis.call('HGET', JOB, 'epoch')) end
if not redis.call('HGET', JOB, 'total') then return false end  -- cancelled before its images were listed
if status ~= 'finished' and status ~= 'cancelled' and status ~= 'stopped' then return false end
redis.call('DEL', ATTEMPTS, OUTSTANDING, RUNNING, SUSPECTS, RETURNED)
if ARGV[1] == '1' then
  redis.call('DEL', FAILURES)
  for _, field in ipairs(redis.call('HKEYS', JOB)) do
    if string.sub(field, 1, 5) == 'code:' then redis.call('HDEL', JOB, field) end
  end
end
for _, key in ipairs(KEYS) do redis.call('PERSIST', key) end
redis.call('HDEL', JOB, 'reason')
redis.call('HSET', JOB, 'status', 'reopening', 'queued_at', now())
return redis.call('HINCRBY', JOB, 'epoch', 1)
