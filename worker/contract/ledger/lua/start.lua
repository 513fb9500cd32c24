-- A worker is about to run a chunk. Count the attempt and return what to do.
-- ARGV: chunk, epoch, first image, images, worker, seconds of silence during which a worker keeps its chunk,
--       starts without progress before images run one by one, longest time until S3 is tried again for a job
-- -> {verdict, states, options, policy, 1 to run images one by one, why its worker died, dead images, starts of the
--    chunk since its last progress, this one included, or since its last release, and if the chunk shall run, 1 to look
--    for outputs of the job first};
--    verdict: run | done | busy | paused | waiting | cancelled | stale | unknown
-- SUSPECTS holds `chunk:C` -> '' (run its images one by one) or the image that runs alone now; `deaths:I` -> how many
-- workers image I killed while it ran alone; `why:C` -> what the parent process saw. `store:I` counts how often S3
-- failed for image I (see `store_failure.lua`), `stored:C` marks a chunk with such an image.
if redis.replicate_commands then redis.replicate_commands() end  -- Redis 6: a random read comes before the writes
local chunk, epoch, first, count, worker = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local silence, split_after, longest_pause = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local job = redis.call('HMGET', JOB, 'status', 'options', 'policy', 'epoch', 'total', 'max_attempts', 'chunk_images',
  'store_retry_at', 'recheck', 'server')
local status, options, policy, total, deaths_allowed = job[1], job[2], job[3], tonumber(job[5] or 0), tonumber(job[6])
local size = tonumber(job[7] or 0)
-- Longer than any job has: not sent to the worker.
if #(options or '') + #(policy or '') > 65536 then options, policy = '{}', '{}' end
local function answer(verdict, values) return {verdict, values or {}, options or '', policy or '', 0, '', {}, 0} end

if not status then return answer('unknown') end
if job[4] ~= epoch or status == 'listing' or status == 'reopening' then return answer('stale') end
-- The numbers of a message that a producer wrote follow from the job. Others would write outcomes of other chunks, and
-- an image number far outside of the job would let Redis allocate memory up to it.
if first ~= tonumber(chunk) * size or count ~= math.min(size, total - first) or total > MAX_IMAGES then
  return answer('stale')
end
local values = states(first, count)
if all_set(first, count) then
  forget(chunk, first, count)
  return answer('done', values)
end
-- First of all: a copy of the message must not take the chunk away from the worker that runs it.
local time = now()
local holder = redis.call('HGET', RUNNING, chunk)
local heard = tonumber(redis.call('ZSCORE', OUTSTANDING, chunk) or 0)
if holder and holder ~= worker and time - heard < silence then return answer('busy', values) end
if status == 'paused' then
  redis.call('HDEL', RUNNING, chunk)
  give_back(chunk)
  return answer('paused', values)
end
if status ~= 'running' then
  forget(chunk, first, count)
  return answer('cancelled', values)
end

-- S3 is unavailable for the job (see `store_failure.lua`). A longer time than any pause is none of maskmill's.
local pause = tonumber(job[8] or 0) - time
if pause > 0 and pause <= longest_pause then
  redis.call('HDEL', RUNNING, chunk)
  give_back(chunk)
  return answer('waiting', values)
end

redis.call('HSETNX', JOB, 'started_at', time)
redis.call('ZADD', OUTSTANDING, time, chunk)
redis.call('HSET', RUNNING, chunk, worker)
unreturn(chunk)
local attempts = increment(ATTEMPTS, chunk)
local suspect = redis.call('HGET', SUSPECTS, 'chunk:' .. chunk)
-- Another server than that of the last start, or of `seal`: it may lack starts and outcomes since. The steward marks all
-- jobs for that (`recheck.lua`), but workers may be faster.
local server = run_id()
if job[10] ~= server then redis.call('HSET', JOB, 'server', server) end
local moved = job[10] and job[10] ~= server
if moved then redis.call('HSET', JOB, 'recheck', 1) end
local recheck = (job[9] or moved) and 1 or 0
if not suspect and attempts <= split_after then
  return {'run', values, options, policy, 0, '', {}, attempts, recheck}
end

-- One by one from now on: if a worker dies, the announced image is to blame.
local blamed = tonumber(suspect or '')
if blamed and blamed % 1 == 0 and blamed >= first and blamed < first + count and state(blamed) == 0 then
  increment(SUSPECTS, 'deaths:' .. blamed)
end
redis.call('HSET', SUSPECTS, 'chunk:' .. chunk, '')
local dead = {}
for i, value in ipairs(values) do
  local deaths = tonumber(redis.call('HGET', SUSPECTS, 'deaths:' .. (first + i - 1)) or 0) or 0
  if value == 0 and deaths >= deaths_allowed then dead[#dead + 1] = first + i - 1 end
end
return {'run', values, options, policy, 1, redis.call('HGET', SUSPECTS, 'why:' .. chunk) or '', dead, attempts, recheck}
