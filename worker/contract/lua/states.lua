-- Shared head of the ledger's scripts. An image's state is four bits: 0 none, 1 ok, 2 skipped, 3 failed, 4 dead,
-- 5 cancelled. One string holds them all, so a job of a million images costs half a megabyte.
local COUNTER = {'ok', 'skipped', 'failed', 'dead', 'cancelled'}
local OK, SKIPPED = 1, 2

local function states(key, first, count)
  local args = {key}
  for i = 0, count - 1 do
    args[#args + 1] = 'GET'
    args[#args + 1] = 'u4'
    args[#args + 1] = '#' .. (first + i)
  end
  return redis.call('BITFIELD', unpack(args))
end

local function all_set(values)
  for _, value in ipairs(values) do
    if value == 0 then return false end
  end
  return true
end

-- A job is finished once, at the moment its last image gets an outcome.
local function finish_if_complete(job, now)
  local f = redis.call('HMGET', job, 'status', 'total', 'ok', 'skipped', 'failed', 'dead', 'cancelled')
  if f[1] ~= 'running' then return 0 end
  local done = 0
  for i = 3, 7 do done = done + tonumber(f[i] or 0) end
  if done ~= tonumber(f[2]) then return 0 end
  redis.call('HSET', job, 'status', 'finished', 'finished_at', now)
  return 1
end
