-- S3 failed while a worker ran a chunk: note what the job waits for, and count a failure of one image.
-- ARGV: chunk, epoch, worker, the last answer, seconds after which an older note counts as past,
--       image (empty: S3 itself is unavailable), tries after which an image is given up, bucket that is unavailable,
--       seconds until the next try of S3 for the job, the longest such time as the tries go on, and the shortest one
-- -> failures of the image, 0 without one or when the chunk no longer belongs to this worker
local chunk, image, tries = ARGV[1], ARGV[6], tonumber(ARGV[7])
local job = redis.call('HMGET', JOB, 'epoch', 'wait_at')
if job[1] ~= ARGV[2] or redis.call('HGET', RUNNING, chunk) ~= ARGV[3] then return 0 end
local failures = 0
if image ~= '' then
  redis.call('HSET', SUSPECTS, 'stored:' .. chunk, '')
  failures = increment(SUSPECTS, 'store:' .. image)
  if failures >= tries then
    redis.call('HDEL', JOB, 'wait_for', 'wait_since', 'wait_at')
    return failures
  end
end
local time = now()
if time - tonumber(job[2] or 0) > tonumber(ARGV[5]) then redis.call('HSET', JOB, 'wait_since', time) end
redis.call('HSET', JOB, 'wait_for', ARGV[4], 'wait_at', time)
-- No chunk of the job starts before `store_retry_at`. Workers that fail at the same time count once.
if image == '' and time >= tonumber(redis.call('HGET', JOB, 'store_retry_at') or 0) then
  local pauses = redis.call('HINCRBY', JOB, 'store_pauses', 1)
  local pause = math.max(tonumber(ARGV[11]), math.min(tonumber(ARGV[10]), tonumber(ARGV[9]) * 2 ^ (pauses - 1)))
  redis.call('HSET', JOB, 'store_retry_at', time + pause, 'store_bucket', ARGV[8])
end
return failures
