-- Listing is complete: store the totals and let the job run.
-- ARGV: images, chunks, images in a chunk, bytes
-- -> 1 when sealed, by this call or by the same call before; 0 when the job was cancelled while it was being listed
if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6: a random read comes before the writes
local job = redis.call('HMGET', JOB, 'status', 'total', 'server')
if job[1] ~= 'listing' then
  if job[2] ~= ARGV[1] then return 0 end
  redis.call('HSET', JOB, 'total', job[2])  -- WAIT, which follows, waits for the writes of this connection only
  return 1
end
-- It was created on another server, where it may have run too: this one may lack the end of the listing and all that
-- followed. Workers look for its outputs first.
local server = run_id()
if job[3] and job[3] ~= server then redis.call('HSET', JOB, 'recheck', 1) end
redis.call('HSET', JOB, 'status', 'running', 'total', ARGV[1], 'chunks', ARGV[2], 'chunk_images', ARGV[3],
  'bytes', ARGV[4], 'cursor', 0, 'submitted_at', now(), 'server', server)
return 1
