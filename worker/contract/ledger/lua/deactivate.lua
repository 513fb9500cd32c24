-- Remove a job that has ended from the set of active jobs. It stays if it has not: a new primary does not know of its end,
-- or it was reopened meanwhile.
-- KEYS: its record, the set of active jobs
-- ARGV: job
-- -> 1 when removed
local status = redis.call('HGET', KEYS[1], 'status')
if status and status ~= 'finished' and status ~= 'stopped' and status ~= 'cancelled' then return 0 end
return redis.call('SREM', KEYS[2], ARGV[1])
