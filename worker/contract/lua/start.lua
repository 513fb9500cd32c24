-- A worker is about to run a chunk. Counts the attempt and says what to do.
-- KEYS: job, states, attempts, outstanding
-- ARGV: chunk, first image, images, now (Unix s), attempts allowed
-- -> {verdict, state of each image, the job's options}; verdict is run | done | dead | cancelled | unknown
local job, images, attempts, outstanding = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local chunk, first, count, now, allowed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])

local status, options = unpack(redis.call('HMGET', job, 'status', 'options'))
if not status then return {'unknown', {}, ''} end
if status == 'cancelled' then return {'cancelled', {}, options} end

local values = states(images, first, count)
if all_set(values) then
  redis.call('ZREM', outstanding, chunk)
  redis.call('HDEL', attempts, chunk)
  return {'done', values, options}
end
redis.call('HSETNX', job, 'started_at', now)
redis.call('ZADD', outstanding, now, chunk)
if redis.call('HINCRBY', attempts, chunk, 1) > allowed then return {'dead', values, options} end
return {'run', values, options}
