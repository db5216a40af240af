-- KEYS: stream, state. ARGV: group, member, most messages, most bytes, and either nothing more or, for a look at what
-- other members left: the redelivery time in ms and the cursor of the last look.
-- Answers the cursor of the next look, then id, body, id, body...: what was given back, what is overdue, what is new. It may be some messages
-- more than asked for.
local STEP, LOOKS, LOOKED_AT = 64, 8, 16

local stream, state, group, member = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local most, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local found, count, bytes = {ARGV[6] or ''}, 0, 0

local function keep(entries)
  for _, entry in ipairs(entries) do
    local body = entry[2][2]
    found[2 * count + 2], found[2 * count + 3] = entry[1], body
    count, bytes = count + 1, bytes + #body
  end
end

-- How many messages to read next: few until their size is known.
local function room()
  if count >= most or bytes >= most_bytes then
    return 0
  end
  local step = math.min(most - count, STEP, 8 + count)
  return bytes == 0 and step or math.min(step, 1 + math.floor((most_bytes - bytes) * count / bytes))
end

while room() > 0 do
  local ids = redis.call('XPENDING', stream, group, '-', '+', room(), 'returned')
  if #ids == 0 then
    break
  end
  for index, row in ipairs(ids) do
    ids[index] = row[1]
  end
  keep(redis.call('XCLAIM', stream, group, member, 0, unpack(ids)))
end

if ARGV[5] then
  for _ = 1, LOOKS do
    if room() == 0 then
      break
    end
    local part = redis.call('XAUTOCLAIM', stream, group, member, ARGV[5], found[1], 'COUNT', LOOKED_AT)
    found[1] = part[1]
    keep(part[2])
    if found[1] == '0-0' then
      break
    end
  end
end

local step = room()
while step > 0 do
  local new = redis.call('XREADGROUP', 'GROUP', group, member, 'COUNT', step, 'STREAMS', stream, '>')
  local entries = new and new[1][2] or {}
  keep(entries)
  step = #entries == step and room() or 0
end

if ARGV[5] then
  trim(stream, state)
end
return found
