-- Read the names of the newest jobs.
-- KEYS: the index of all jobs, a sorted set
-- ARGV: most names to return
-- -> names of jobs, newest first
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then return {} end
local names, most, first = {}, tonumber(ARGV[1]), 0
while #names < most do
  local members = redis.call('ZREVRANGE', KEYS[1], first, first + 99)
  for _, name in ipairs(members) do
    if #names < most and is_job(name) then names[#names + 1] = name end
  end
  first = first + 100
  -- An index full of other names must not keep Redis busy.
  if #members < 100 or first >= 100 * most + 10000 then break end
end
return names
