-- Listing is over and every chunk is known: the job may run, and may finish.
-- ARGV: images, chunks, images in a chunk, bytes
-- -> 1 when sealed, now or by the same call made before; 0 when it was cancelled while it was being listed
local job = redis.call('HMGET', JOB, 'status', 'total')
if job[1] ~= 'listing' then return job[2] == ARGV[1] and 1 or 0 end
redis.call('HSET', JOB, 'status', 'running', 'total', ARGV[1], 'chunks', ARGV[2], 'chunk_images', ARGV[3],
  'bytes', ARGV[4], 'cursor', 0, 'submitted_at', now())
return 1
