-- Remove names of jobs that Redis does not know from the index of all jobs: of jobs that it has forgotten, and of none.
-- KEYS: the index, a sorted set
-- ARGV: what the names of records begin and end with, first and last place to look at, newest first
-- -> {names looked at, names removed}
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then return {0, 0} end
local removed, names = 0, redis.call('ZREVRANGE', KEYS[1], ARGV[3], ARGV[4])
for _, name in ipairs(names) do
  if redis.call('EXISTS', ARGV[1] .. name .. ARGV[2]) == 0 then removed = removed + redis.call('ZREM', KEYS[1], name) end
end
return {#names, removed}
