-- Outcomes of images of one chunk. Idempotent: a counter moves only when an image's state does, an image that is
-- ok or skipped stays so, and a failed one can still become ok (a redelivered copy got through).
-- KEYS: job, states, attempts, outstanding, failures
-- ARGV: chunk, first image, images, now (Unix s), failures kept, then for each outcome: index, state, JSON
-- -> 1 when this call finished the job
local job, images, attempts, outstanding, failures = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local chunk, first, count, now, kept = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])

if redis.call('EXISTS', job) == 0 then return 0 end
local progress = false
for i = 6, #ARGV, 3 do
  local index, new = ARGV[i], tonumber(ARGV[i + 1])
  local old = redis.call('BITFIELD', images, 'GET', 'u4', '#' .. index)[1]
  if old == 0 or (old > SKIPPED and new <= SKIPPED) then
    redis.call('BITFIELD', images, 'SET', 'u4', '#' .. index, new)
    redis.call('HINCRBY', job, COUNTER[new], 1)
    if old > 0 then redis.call('HINCRBY', job, COUNTER[old], -1) end
    if new > SKIPPED and redis.call('LLEN', failures) < kept then redis.call('RPUSH', failures, ARGV[i + 2]) end
    progress = true
  end
end
if all_set(states(images, first, count)) then
  redis.call('ZREM', outstanding, chunk)
  redis.call('HDEL', attempts, chunk)
else
  redis.call('ZADD', outstanding, now, chunk)
  -- Attempts count starts without progress: a chunk that gets further each time is not poison.
  if progress then redis.call('HSET', attempts, chunk, 1) end
end
return finish_if_complete(job, now)
