-- Remove from both indexes what is no name of a job, and every shared key that has another type than it should.
-- KEYS: the set of active jobs, the sorted set of all jobs, further shared keys
-- ARGV: most members to look at, then the type of each key
-- -> number of members and keys removed
if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6: a random read comes before the writes
local most, removed = tonumber(ARGV[1]), 0
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= ARGV[i + 1] then removed = removed + redis.call('DEL', key) end
end
for _, name in ipairs(redis.call('SRANDMEMBER', KEYS[1], most)) do
  if not is_job(name) then removed = removed + redis.call('SREM', KEYS[1], name) end
end
-- The newest ones only: readers go no further.
for _, name in ipairs(redis.call('ZREVRANGE', KEYS[2], 0, most - 1)) do
  if not is_job(name) then removed = removed + redis.call('ZREM', KEYS[2], name) end
end
return removed
