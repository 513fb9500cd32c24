-- Announce the image of a careful chunk that is run next, alone: if the worker dies now, it was this one.
-- ARGV: chunk, epoch, worker, image
-- -> 1, or 0 when the chunk is not this worker's any more
if redis.call('HGET', JOB, 'epoch') ~= ARGV[2] or redis.call('HGET', RUNNING, ARGV[1]) ~= ARGV[3] then return 0 end
redis.call('HSET', SUSPECTS, 'chunk:' .. ARGV[1], ARGV[4])
return 1
