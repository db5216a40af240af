-- KEYS: stream, state. ARGV: most bytes of a new topic, groups...
-- Writes nothing where all is there: members must be able to join, and drain, a server that is out of memory.
local stream, state = KEYS[1], KEYS[2]
local present, count = {}, 0
if redis.call('EXISTS', stream) == 0 then
  redis.call('DEL', state)
elseif redis.call('XLEN', stream) > 0 and redis.call('EXISTS', state) == 0 then
  return redis.error_reply('FOREIGN ' .. stream .. ' holds messages that are not of this topic: ' .. state .. ' is missing')
else
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    present[group[2]] = true
    count = count + 1
  end
end
for index = 2, #ARGV do
  local group = ARGV[index]
  if not present[group] then
    redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
    present[group] = true
    count = count + 1
  end
end
local known = redis.call('HGET', state, 'groups')
if not known then
  redis.call('HSET', state, 'in', 0, 'out', 0, 'max', ARGV[1], 'groups', count)
elseif tonumber(known) ~= count then
  redis.call('HSET', state, 'groups', count)
end
return redis.status_reply('OK')
