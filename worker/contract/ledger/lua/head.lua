-- Shared head of the ledger's scripts. Every script takes all keys of one job.
-- The state of an image is four bits: 0 none, 1 ok, 2 skipped, 3 failed, 4 dead, 5 cancelled. One string holds the
-- states of all images: 0.5 MB for a million images.
-- The time is the server's, so the clocks of the nodes do not matter.
local JOB, IMAGES, ATTEMPTS, OUTSTANDING, RUNNING, SUSPECTS, RETURNED, FAILURES, LOG = unpack(KEYS)
local COUNTER = {'ok', 'skipped', 'failed', 'dead', 'cancelled'}
local SKIPPED, FAILED, DEAD, CANCELLED = 2, 3, 4, 5
-- Most images of a job (`worker.contract.job.MAX_IMAGES`). A larger number in a record would let Redis allocate memory.
local MAX_IMAGES = 50000000

local function is_job(name) return #name <= 64 and name:match('^[%w_-]+$') ~= nil end

local function now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

-- Name of this run of this server: another one after a failover, and after a restart.
local function run_id()
  return redis.call('INFO', 'server'):match('run_id:(%w+)') or ''
end

local function state(index)
  return redis.call('BITFIELD', IMAGES, 'GET', 'u4', '#' .. index)[1]
end

-- Add 1 to a number in a hash; what is no number counts as 0.
local function increment(key, field)
  if not (redis.call('HGET', key, field) or '0'):match('^-?%d%d?%d?%d?%d?%d?$') then redis.call('HDEL', key, field) end
  return redis.call('HINCRBY', key, field, 1)
end

local function set_state(index, value)
  redis.call('BITFIELD', IMAGES, 'SET', 'u4', '#' .. index, value)
end

local function states(first, count)
  local args = {IMAGES}
  for i = 0, count - 1 do
    args[#args + 1] = 'GET'
    args[#args + 1] = 'u4'
    args[#args + 1] = '#' .. (first + i)
  end
  return redis.call('BITFIELD', unpack(args))
end

-- Whether every image of a chunk has an outcome. Runs after each image, so it reads half a byte per image instead of a
-- number for each. The pattern finds a byte with a zero in either half.
local function all_set(first, count)
  local last = first + count - 1
  local bytes = redis.call('GETRANGE', IMAGES, math.floor(first / 2), math.floor(last / 2))
  if #bytes <= math.floor(last / 2) - math.floor(first / 2) then return false end
  if first % 2 == 1 then  -- the other half of the first byte belongs to the previous chunk
    if bytes:byte(1) % 16 == 0 then return false end
    bytes = bytes:sub(2)
  end
  if last % 2 == 0 then  -- the other half of the last byte belongs to the next chunk
    if bytes:byte(-1) < 16 then return false end
    bytes = bytes:sub(1, -2)
  end
  -- Images run in order, so bytes of zero are usual until the end of the chunk; they are found without the long pattern.
  if bytes:find('%z') then return false end
  return not bytes:find('[\1-\15\16\32\48\64\80\96\112\128\144\160\176\192\208\224\240]')
end

-- RETURNED is one bit per chunk: a Redis set of 100,000 chunks would take 6 MB.
local function is_returned(chunk) return redis.call('GETBIT', RETURNED, chunk) == 1 end

local function give_back(chunk)
  redis.call('ZREM', OUTSTANDING, chunk)
  redis.call('SETBIT', RETURNED, chunk, 1)
end

local function unreturn(chunk)
  if is_returned(chunk) then redis.call('SETBIT', RETURNED, chunk, 0) end  -- otherwise SETBIT would create the key
end

-- Delete all records of a chunk that needs no further work, except the states of its images.
local function forget(chunk, first, count)
  redis.call('ZREM', OUTSTANDING, chunk)
  redis.call('HDEL', RUNNING, chunk)
  redis.call('HDEL', ATTEMPTS, chunk)
  unreturn(chunk)
  if redis.call('HDEL', SUSPECTS, 'chunk:' .. chunk, 'why:' .. chunk) > 0 then
    for i = 0, count - 1 do redis.call('HDEL', SUSPECTS, 'deaths:' .. (first + i)) end
  end
  if redis.call('HDEL', SUSPECTS, 'stored:' .. chunk) > 0 then
    for i = 0, count - 1 do redis.call('HDEL', SUSPECTS, 'store:' .. (first + i)) end
  end
end

-- Images with an outcome.
local function done()
  local sum = 0
  for _, value in ipairs(redis.call('HMGET', JOB, unpack(COUNTER))) do sum = sum + tonumber(value or 0) end
  return sum
end

-- Stop a job. Workers stop at the next image; chunks that are queued but not started are dropped at once.
local function stop(ending, reason)
  redis.call('HSET', JOB, 'status', 'stopping', 'ending', ending, 'reason', reason)
  for _, chunk in ipairs(redis.call('ZRANGE', OUTSTANDING, 0, -1)) do
    if redis.call('HEXISTS', RUNNING, chunk) == 0 then redis.call('ZREM', OUTSTANDING, chunk) end
  end
end
