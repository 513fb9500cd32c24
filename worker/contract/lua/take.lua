-- Choose the next chunks of a running job to publish. They count as outstanding from here on: a publish that fails is
-- then known to be missing.
-- ARGV: chunks wanted
-- -> chunk numbers
local wanted = tonumber(ARGV[1])
local job = redis.call('HMGET', JOB, 'status', 'cursor', 'chunks')
if job[1] ~= 'running' then return {} end
local taken = redis.call('SPOP', RETURNED, wanted)
local cursor, chunks = tonumber(job[2]), tonumber(job[3])
while #taken < wanted and cursor < chunks do
  taken[#taken + 1] = tostring(cursor)
  cursor = cursor + 1
end
redis.call('HSET', JOB, 'cursor', cursor)
local time = now()
for _, chunk in ipairs(taken) do redis.call('ZADD', OUTSTANDING, time, chunk) end
return taken
