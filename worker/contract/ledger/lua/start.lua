-- A worker is about to run a chunk. Counts the attempt and says what to do.
-- ARGV: chunk, epoch, first image, images, worker, seconds for which a silent worker counts as running,
--       starts without progress before images are run one by one
-- -> {verdict, states, options, policy, careful, why its worker died, images to bury};
--    verdict: run | done | busy | paused | cancelled | stale | unknown
-- In SUSPECTS: `chunk:C` -> '' (to be run one by one) or the image that is being run alone; `deaths:I` -> how often
-- image I, alone, took its worker along; `why:C` -> what the parent process saw.
local chunk, epoch, first, count, worker = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local busy, split_after = tonumber(ARGV[6]), tonumber(ARGV[7])

local job = redis.call('HMGET', JOB, 'status', 'options', 'policy', 'epoch', 'total', 'max_attempts')
local status, options, policy, total, deaths_allowed = job[1], job[2], job[3], tonumber(job[5] or 0), tonumber(job[6])
local function answer(verdict, values) return {verdict, values or {}, options or '', policy or '', 0, '', {}} end

if not status then return answer('unknown') end
if job[4] ~= epoch or status == 'listing' or status == 'reopening' or first + count > total then
  return answer('stale')
end
local values = states(first, count)
if all_set(first, count) then
  forget(chunk, first, count)
  return answer('done', values)
end
-- Before all else: who is at it answers for the chunk, and a copy of its message must not take it away.
local time = now()
local holder = redis.call('HGET', RUNNING, chunk)
local heard = tonumber(redis.call('ZSCORE', OUTSTANDING, chunk) or 0)
if holder and holder ~= worker and time - heard < busy then return answer('busy', values) end
if status == 'paused' then
  redis.call('HDEL', RUNNING, chunk)
  give_back(chunk)
  return answer('paused', values)
end
if status ~= 'running' then
  forget(chunk, first, count)
  return answer('cancelled', values)
end

redis.call('HSETNX', JOB, 'started_at', time)
redis.call('ZADD', OUTSTANDING, time, chunk)
redis.call('HSET', RUNNING, chunk, worker)
unreturn(chunk)
local attempts = redis.call('HINCRBY', ATTEMPTS, chunk, 1)
local suspect = redis.call('HGET', SUSPECTS, 'chunk:' .. chunk)
if not suspect and attempts <= split_after then return {'run', values, options, policy, 0, '', {}} end

-- One by one from here on: whoever dies now names the image.
if suspect and suspect ~= '' and state(suspect) == 0 then redis.call('HINCRBY', SUSPECTS, 'deaths:' .. suspect, 1) end
redis.call('HSET', SUSPECTS, 'chunk:' .. chunk, '')
local buried = {}
for i, value in ipairs(values) do
  local deaths = tonumber(redis.call('HGET', SUSPECTS, 'deaths:' .. (first + i - 1)) or 0)
  if value == 0 and deaths >= deaths_allowed then buried[#buried + 1] = first + i - 1 end
end
return {'run', values, options, policy, 1, redis.call('HGET', SUSPECTS, 'why:' .. chunk) or '', buried}
