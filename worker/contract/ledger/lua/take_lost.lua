-- Given chunks that have been silent too long and are nowhere in the broker, choose those to publish again.
-- ARGV: seconds of silence, then chunk numbers
-- -> chunk numbers that are still silent; they count as heard of now
local time, lost = now(), {}
local status = redis.call('HGET', JOB, 'status')
for i = 2, #ARGV do
  local chunk = ARGV[i]
  local heard = tonumber(redis.call('ZSCORE', OUTSTANDING, chunk) or '')
  if heard and heard <= time - tonumber(ARGV[1]) then
    redis.call('HDEL', RUNNING, chunk)
    if status == 'running' then
      redis.call('ZADD', OUTSTANDING, time, chunk)
      lost[#lost + 1] = chunk
    else
      redis.call('ZREM', OUTSTANDING, chunk)
      if status == 'paused' then give_back(chunk) end
    end
  end
end
return lost
