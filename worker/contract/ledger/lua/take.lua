-- Choose the next chunks of a running job to publish. They count as outstanding from now on, so a chunk whose message
-- is never published is found to be lost.
-- ARGV: number of chunks, epoch of the messages to be published
-- -> chunk numbers, lowest first: neighbours share a part of the manifest
local wanted = tonumber(ARGV[1])
local job = redis.call('HMGET', JOB, 'status', 'cursor', 'chunks', 'epoch')
if job[1] ~= 'running' or job[4] ~= ARGV[2] then return {} end
local taken = {}
while #taken < wanted do
  local chunk = redis.call('BITPOS', RETURNED, 1)
  if chunk < 0 then
    redis.call('DEL', RETURNED)
    break
  end
  redis.call('SETBIT', RETURNED, chunk, 0)
  taken[#taken + 1] = chunk
end
local cursor, chunks = tonumber(job[2]), tonumber(job[3])
while #taken < wanted and cursor < chunks do
  taken[#taken + 1] = cursor
  cursor = cursor + 1
end
redis.call('HSET', JOB, 'cursor', cursor)
local time = now()
for _, chunk in ipairs(taken) do redis.call('ZADD', OUTSTANDING, time, chunk) end
return taken
