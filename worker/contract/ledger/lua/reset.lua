-- Reset images of one chunk of a reopened job, so that they run again. Idempotent.
-- ARGV: chunk, first image, images, 1 to reset failed and dead images, 1 to reset cancelled images
-- -> number of images reset
local chunk, first, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local failed, cancelled = ARGV[4] == '1', ARGV[5] == '1'
if redis.call('HGET', JOB, 'status') ~= 'reopening' or is_returned(chunk) then return 0 end
local reset = 0
for i, value in ipairs(states(first, count)) do
  local index = first + i - 1
  if (failed and (value == FAILED or value == DEAD)) or (cancelled and (value == 0 or value == CANCELLED)) then
    set_state(index, 0)
    redis.call('HINCRBY', JOB, COUNTER[value == 0 and CANCELLED or value], -1)
    reset = reset + 1
  elseif value == 0 then
    set_state(index, CANCELLED)  -- cancelled with the job; must not run again
  end
end
if reset > 0 then give_back(chunk) end
return reset
