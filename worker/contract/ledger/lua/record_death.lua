-- The parent of a model process saw it die while it ran a chunk.
-- ARGV: chunk, worker, reason
if redis.call('HGET', RUNNING, ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', RUNNING, ARGV[1])
redis.call('HSET', SUSPECTS, 'why:' .. ARGV[1], ARGV[3])
return 1
