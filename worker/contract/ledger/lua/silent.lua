-- Find the outstanding chunks without a sign of life for a time, and drop members that are no chunk of the job.
-- ARGV: seconds of silence, most chunks to return
-- -> chunk numbers
local chunks, found = tonumber(redis.call('HGET', JOB, 'chunks') or 0), {}
-- A time far ahead would keep a chunk out of sight for ever.
for _, chunk in ipairs(redis.call('ZRANGEBYSCORE', OUTSTANDING, now() + 3600, '+inf', 'LIMIT', 0, ARGV[2])) do
  redis.call('ZADD', OUTSTANDING, now(), chunk)
end
for _, chunk in ipairs(redis.call('ZRANGEBYSCORE', OUTSTANDING, '-inf', now() - tonumber(ARGV[1]), 'LIMIT', 0, ARGV[2])) do
  if #chunk < 16 and chunk:match('^%d+$') and tonumber(chunk) < chunks then
    found[#found + 1] = tonumber(chunk)
  else
    redis.call('ZREM', OUTSTANDING, chunk)
  end
end
return found
