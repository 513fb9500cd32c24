-- A worker gives up a chunk, complete or not.
-- ARGV: chunk, epoch, first image, images, worker, core seconds spent, 1 when the attempt must not count, model,
--       seconds until the chunk is published again (0: its message goes back to the queue now), seconds of silence after
--       which the reconciler publishes a chunk, 1 when the feeder must publish it: S3 is unavailable for the job
-- -> 1 when the message must go back to the queue
local chunk, epoch, first, count = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local job = redis.call('HMGET', JOB, 'status', 'epoch')
if not job[1] then return 0 end
redis.call('HINCRBYFLOAT', JOB, 'core_seconds', ARGV[6])
redis.call('HINCRBY', JOB, 'model:' .. ARGV[8], 1)
if job[2] ~= epoch then return 0 end
local holder = redis.call('HGET', RUNNING, chunk)
if all_set(first, count) then
  forget(chunk, first, count)
  return 0
end
if holder and holder ~= ARGV[5] then return 0 end  -- another worker is responsible for it now
if holder then
  redis.call('HDEL', RUNNING, chunk)
  if ARGV[7] == '1' then
    if (tonumber(redis.call('HGET', ATTEMPTS, chunk) or 0) or 0) > 0 then redis.call('HINCRBY', ATTEMPTS, chunk, -1) end
    if redis.call('HEXISTS', SUSPECTS, 'chunk:' .. chunk) == 1 then redis.call('HSET', SUSPECTS, 'chunk:' .. chunk, '') end
  end
end
if job[1] == 'paused' then
  give_back(chunk)
  return 0
end
if job[1] ~= 'running' then
  forget(chunk, first, count)
  return 0
end
if is_returned(chunk) then return 0 end  -- given back since, in a pause: the feeder publishes it
if ARGV[11] == '1' then
  give_back(chunk)
  return 0
end
if tonumber(ARGV[9]) > 0 then  -- silent from then on, and in no queue: the reconciler publishes it
  redis.call('ZADD', OUTSTANDING, now() - tonumber(ARGV[10]) + tonumber(ARGV[9]), chunk)
  return 0
end
redis.call('ZADD', OUTSTANDING, now(), chunk)
return 1
