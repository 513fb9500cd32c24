-- A worker that has connected again reports that it still runs a chunk: a new primary may lack its last signs of life.
-- ARGV: chunk, epoch, first image, images, worker
-- -> 1, or 0 if the chunk is not its own or needs no further work
local job = redis.call('HMGET', JOB, 'status', 'epoch')
if job[2] ~= ARGV[2] or (job[1] ~= 'running' and job[1] ~= 'paused' and job[1] ~= 'stopping') then return 0 end
local holder = redis.call('HGET', RUNNING, ARGV[1])
if holder and holder ~= ARGV[5] or all_set(tonumber(ARGV[3]), tonumber(ARGV[4])) then return 0 end
redis.call('HSET', RUNNING, ARGV[1], ARGV[5])
redis.call('ZADD', OUTSTANDING, now(), ARGV[1])
return 1
