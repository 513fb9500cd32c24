-- Listing is over and every chunk is known: the job may run, and may finish.
-- ARGV: images, chunks, images in a chunk, bytes
-- -> 1 when sealed, 0 when the job is not being listed (cancelled meanwhile, or sealed before)
if redis.call('HGET', JOB, 'status') ~= 'listing' then return 0 end
redis.call('HSET', JOB, 'status', 'running', 'total', ARGV[1], 'chunks', ARGV[2], 'chunk_images', ARGV[3],
  'bytes', ARGV[4], 'cursor', 0, 'submitted_at', now())
return 1
