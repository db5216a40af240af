-- KEYS: stream, state. ARGV: group, member, after how many ms of silence a member that holds nothing is forgotten.
-- Gives back what the member holds and removes it: a member's removal would discard what it holds.
local CHUNK = 1000

local stream, group, member = KEYS[1], ARGV[1], ARGV[2]
while true do
  local ids = redis.call('XPENDING', stream, group, '-', '+', CHUNK, member)
  if #ids == 0 then
    break
  end
  for index, row in ipairs(ids) do
    ids[index] = row[1]
  end
  ids[#ids + 1] = 'JUSTID'
  redis.call('XCLAIM', stream, group, 'returned', 0, unpack(ids))
end
redis.call('XGROUP', 'DELCONSUMER', stream, group, member)
for _, other in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local name, pending, idle_ms = other[2], other[4], other[6]
  if pending == 0 and idle_ms > tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
  end
end
trim(stream, KEYS[2])
return redis.status_reply('OK')
