-- End a job whose lists are in S3, and let its keys expire.
-- ARGV: epoch, seconds until the keys expire, why its lists are incomplete (empty: they are complete)
-- -> 1 when this call ended it
local job = redis.call('HMGET', JOB, 'status', 'ending', 'epoch')
if job[1] and job[1] == job[2] and job[3] == ARGV[1] then
  redis.call('HSET', JOB, 'status', job[2])  -- the same call before ended it: WAIT, which follows, needs a write
end
if job[1] ~= 'closing' or job[3] ~= ARGV[1] then return 0 end
redis.call('HSET', JOB, 'status', job[2], 'finished_at', now())
if ARGV[3] ~= '' then
  local before = redis.call('HGET', JOB, 'reason')
  redis.call('HSET', JOB, 'reason', (before and before ~= '' and before .. '; ' or '') .. ARGV[3])
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[2]) end
return 1
