-- The parent of a worker process saw its child die over a chunk.
-- ARGV: chunk, worker, what it saw
if redis.call('HGET', RUNNING, ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', RUNNING, ARGV[1])
redis.call('HSET', SUSPECTS, 'why:' .. ARGV[1], ARGV[3])
return 1
