-- Announce the image that runs next, alone: if the worker dies now, this image is to blame.
-- ARGV: chunk, epoch, worker, image
-- -> 1, or 0 when the chunk no longer belongs to this worker
if redis.call('HGET', JOB, 'epoch') ~= ARGV[2] or redis.call('HGET', RUNNING, ARGV[1]) ~= ARGV[3] then return 0 end
redis.call('HSET', SUSPECTS, 'chunk:' .. ARGV[1], ARGV[4])
return 1
