-- The primary has changed: outcomes may be missing whose outputs exist. Workers look for outputs of the job before they
-- make new ones, from now on.
-- -> 1, or 0 if the job is not running
local status = redis.call('HGET', JOB, 'status')
if status ~= 'running' and status ~= 'paused' then return 0 end
redis.call('HSET', JOB, 'recheck', 1)
return 1
