-- Let a reopened job run, once every chunk with work left is in RETURNED.
-- -> number of images to run
if redis.call('HGET', JOB, 'status') ~= 'reopening' then return 0 end
local before = done()
local left = tonumber(redis.call('HGET', JOB, 'total')) - before
local bad = redis.call('HMGET', JOB, 'failed', 'dead')
-- The failure limits count only what runs from now on, or a job that they stopped would stop again at once.
redis.call('HSET', JOB, 'judged_after', before, 'pardoned', tonumber(bad[1] or 0) + tonumber(bad[2] or 0))
redis.call('HDEL', JOB, 'finished_at', 'completed_at')
if left == 0 then
  redis.call('HSET', JOB, 'status', 'closing')
else
  redis.call('HSET', JOB, 'status', 'running', 'ending', '', 'cursor', redis.call('HGET', JOB, 'chunks'))
end
return left
