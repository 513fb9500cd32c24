-- Read the oldest outcomes that are not in S3 yet, up to a number and a size.
-- ARGV: most outcomes, most bytes of all, most bytes of one
-- -> `run_id` of this server, then ids and JSON texts in turn; the text is empty for an entry that is no outcome or too
--    long
local most, room, longest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local found, after = {run_id()}, '-'
while most > 0 and room > 0 do
  local entries = redis.call('XRANGE', LOG, after, '+', 'COUNT', math.min(most, 100))
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    local text = entry[2][1] == 'o' and entry[2][2] or ''
    if #text > longest then text = '' end
    found[#found + 1] = entry[1]
    found[#found + 1] = text
    most, room, after = most - 1, room - #text, '(' .. entry[1]
    if room <= 0 then break end
  end
end
return found
