-- Read the names of jobs in an index; a random part of an index that is larger than allowed.
-- KEYS: the index, a set
-- ARGV: most names to return
-- -> {number of members that are no names of jobs, names of jobs}; {-1} when the index has another type
local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'set' then return {found == 'none' and 0 or -1, {}} end
local most, names, foreign = tonumber(ARGV[1]), {}, 0
local members = redis.call('SCARD', KEYS[1]) <= most and redis.call('SMEMBERS', KEYS[1])
  or redis.call('SRANDMEMBER', KEYS[1], most)
for _, name in ipairs(members) do
  if is_job(name) then names[#names + 1] = name else foreign = foreign + 1 end
end
return {foreign, names}
