-- Read the task ids of messages, and nothing else of them: a message may have megabytes.
-- KEYS: a queue, or the hash of messages that workers hold (kombu's layouts)
-- ARGV: first and last place in the queue, tags of held messages to leave out
-- -> {number of messages read, ids of those that have one}
local found = redis.call('TYPE', KEYS[1]).ok
local texts = {}
if found == 'list' then texts = redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[2]) end
if found == 'hash' then
  local without = {}
  for place = 3, #ARGV do without[ARGV[place]] = true end
  local fields = redis.call('HGETALL', KEYS[1])
  for place = 1, #fields, 2 do
    if not without[fields[place]] then texts[#texts + 1] = fields[place + 1] end
  end
end
local ids = {}
for _, text in ipairs(texts) do
  -- The body, which comes before it, is base64 and has no quotes.
  ids[#ids + 1] = text:match('"id"%s*:%s*"([%w_-]+%.%d+%.%d+)"')
end
return {#texts, ids}
