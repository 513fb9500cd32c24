-- A reopened job runs again: every chunk with something to do is in RETURNED.
-- -> images to run
if redis.call('HGET', JOB, 'status') ~= 'reopening' then return 0 end
local left = tonumber(redis.call('HGET', JOB, 'total')) - done()
redis.call('HDEL', JOB, 'finished_at', 'completed_at')
if left == 0 then
  redis.call('HSET', JOB, 'status', 'closing')
else
  redis.call('HSET', JOB, 'status', 'running', 'ending', '', 'cursor', redis.call('HGET', JOB, 'chunks'))
end
return left
