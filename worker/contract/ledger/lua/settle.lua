-- Close a stopping job once no worker runs a chunk of it; images without an outcome count as cancelled.
-- ARGV: seconds of silence after which a worker counts as gone
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
