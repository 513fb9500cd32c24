-- Remove from both indexes what is no name of a job, and an index that has another type.
-- KEYS: the set of active jobs, the sorted set of all jobs
-- ARGV: most members to look at
-- -> number of members and indexes removed
if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6: a random read comes before the writes
local most, removed = tonumber(ARGV[1]), 0
local function has_type(key, wanted)
  local found = redis.call('TYPE', key).ok
  if found == wanted then return true end
  if found ~= 'none' then
    redis.call('DEL', key)
    removed = removed + 1
  end
  return false
end
if has_type(KEYS[1], 'set') then
  for _, name in ipairs(redis.call('SRANDMEMBER', KEYS[1], most)) do
    if not is_job(name) then removed = removed + redis.call('SREM', KEYS[1], name) end
  end
end
if has_type(KEYS[2], 'zset') then
  -- The newest ones only: readers go no further.
  for _, name in ipairs(redis.call('ZREVRANGE', KEYS[2], 0, most - 1)) do
    if not is_job(name) then removed = removed + redis.call('ZREM', KEYS[2], name) end
  end
end
return removed
