-- Read the next names of jobs in an index: all at once, or by turns of an index that is larger than allowed.
-- KEYS: the index, a set
-- ARGV: most names to return, or a few more; the cursor of the previous call, 0 to begin; names it returned and that
--   were not used: the next ones, as far as they are still members
-- -> {cursor, names of jobs}. A turn ends with the cursor 0; every name that is a member all the time was returned then,
--    perhaps twice. After a failover the cursor stands for other names: the turn may miss some.
local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'set' then return {'0', {}} end
local most, cursor, names, members = tonumber(ARGV[1]), ARGV[2], {}, {}
for i = 3, #ARGV do
  if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 1 then names[#names + 1] = ARGV[i] end
end
if cursor == '0' and #names == 0 and redis.call('SCARD', KEYS[1]) <= most then
  members = redis.call('SMEMBERS', KEYS[1])
elseif (cursor ~= '0' or #names == 0) and #names <= most then
  -- One name more than is used, if there is one: otherwise the last call of a turn might find none.
  cursor, members = unpack(redis.call('SSCAN', KEYS[1], cursor, 'COUNT', most + 1 - #names))
end
for _, name in ipairs(members) do
  if is_job(name) then names[#names + 1] = name end
end
return {cursor, names}
