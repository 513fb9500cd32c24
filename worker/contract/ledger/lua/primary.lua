-- Notice that another server has become the primary, or that this one was started again: it may lack what was done last.
-- KEYS: hash with `run_id` of the server that ran this script last, and `since` when that changed
-- -> seconds since the change, as a string; '' if there was none
if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6: a random read comes before the writes
local id = run_id()
local known = redis.call('HMGET', KEYS[1], 'run_id', 'since')
if known[1] ~= id then
  known[2] = known[1] and now()
  redis.call('HSET', KEYS[1], 'run_id', id, 'since', known[2] or '')
end
local since = tonumber(known[2] or '')
return since and tostring(now() - since) or ''
