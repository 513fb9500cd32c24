-- Read one job, after a check that it can be read: the type of each key, and the size of what is returned or scanned.
-- ARGV: fields and bytes that a record may have at most
-- -> {'', bytes of the states of images, bytes of RETURNED, outstanding chunks, chunks in RETURNED, outcomes in the log,
--    the time in seconds, then names and values of the record}; {why it cannot be read}; {} without a record
local TYPES = {'hash', 'string', 'hash', 'zset', 'hash', 'hash', 'string', 'list', 'stream'}
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= TYPES[i] then return {key .. ' is a ' .. found .. ' and not a ' .. TYPES[i]} end
end
local fields = redis.call('HLEN', JOB)
if fields == 0 then return {} end
if fields > tonumber(ARGV[1]) then return {'its record has ' .. fields .. ' fields, at most ' .. ARGV[1] .. ' are read'} end
local bytes = redis.call('MEMORY', 'USAGE', JOB, 'SAMPLES', 0)
if bytes > tonumber(ARGV[2]) then return {'its record has ' .. bytes .. ' bytes, at most ' .. ARGV[2] .. ' are read'} end
local returned = redis.call('STRLEN', RETURNED)
-- A string longer than any job needs is not counted: it could have half a gigabyte.
local waiting = returned <= MAX_IMAGES / 8 + 1 and redis.call('BITCOUNT', RETURNED) or 0
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local answer = {'', redis.call('STRLEN', IMAGES), returned, redis.call('ZCARD', OUTSTANDING), waiting,
  redis.call('XLEN', LOG), now}
for _, part in ipairs(redis.call('HGETALL', JOB)) do answer[#answer + 1] = part end
return answer
