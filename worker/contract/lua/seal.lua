-- Listing is over and every chunk is known: the job may run, and may finish.
-- KEYS: job
-- ARGV: images, chunks, bytes, now (Unix s)
-- -> 1 when sealed, 0 when the job is not being listed (cancelled meanwhile, or sealed before)
if redis.call('HGET', KEYS[1], 'status') ~= 'listing' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'running', 'total', ARGV[1], 'chunks', ARGV[2], 'bytes', ARGV[3],
  'submitted_at', ARGV[4])
return 1
