-- Return chunks that were taken but could not be published. A chunk that reached a worker all the same stays with it.
-- ARGV: epoch, then chunk numbers
local job = redis.call('HMGET', JOB, 'status', 'epoch')
if job[2] ~= ARGV[1] or (job[1] ~= 'running' and job[1] ~= 'paused') then return 0 end
for i = 2, #ARGV do
  local chunk = ARGV[i]
  if redis.call('ZSCORE', OUTSTANDING, chunk) and redis.call('HEXISTS', RUNNING, chunk) == 0 then give_back(chunk) end
end
return 1
