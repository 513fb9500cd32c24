-- Put back a job that Redis has lost: all of its keys in one step, so an interrupted recovery leaves nothing behind, and
-- of two recoveries at the same time one counts.
-- KEYS: the keys of the job, then the index of all jobs and that of active jobs
-- ARGV: job, time of its submission, 1 when it has not ended, token of this recovery, the outcome of each image (IMAGES),
--       the chunks to publish first (RETURNED), then names and values of the record
-- -> 1 when restored, by this call or by the same call before; 0 when Redis has the job
local held = redis.call('HGET', JOB, 'restored_by')
if held or redis.call('EXISTS', JOB) == 1 then return held == ARGV[4] and 1 or 0 end
for i = 1, 9 do redis.call('DEL', KEYS[i]) end
if #ARGV[5] > 0 then redis.call('SET', IMAGES, ARGV[5]) end
if #ARGV[6] > 0 then redis.call('SET', RETURNED, ARGV[6]) end
redis.call('HSET', JOB, 'restored_by', ARGV[4])
for i = 7, #ARGV, 2 do redis.call('HSET', JOB, ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[10], ARGV[2], ARGV[1])
if ARGV[3] == '1' then redis.call('SADD', KEYS[11], ARGV[1]) end
return 1
