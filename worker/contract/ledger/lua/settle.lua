-- A job that was told to stop is closed as soon as nobody works on it any more; what is left of it is cancelled.
-- ARGV: seconds after which a silent worker counts as gone
-- -> 1 when this call closed it
if redis.call('HGET', JOB, 'status') ~= 'stopping' then return 0 end
local time = now()
for _, chunk in ipairs(redis.call('HKEYS', RUNNING)) do
  local heard = tonumber(redis.call('ZSCORE', OUTSTANDING, chunk) or 0)
  if heard <= time - tonumber(ARGV[1]) then redis.call('HDEL', RUNNING, chunk) end
end
if redis.call('HLEN', RUNNING) > 0 then return 0 end
redis.call('HINCRBY', JOB, 'cancelled', tonumber(redis.call('HGET', JOB, 'total')) - done())
redis.call('DEL', ATTEMPTS, OUTSTANDING, RETURNED, SUSPECTS)
redis.call('HSET', JOB, 'status', 'closing', 'completed_at', time)
return 1
