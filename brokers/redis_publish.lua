-- KEYS: stream, state. ARGV: body. Answers OK, GONE (the topic or one of its groups) or FULL.
local stream, state, body = KEYS[1], KEYS[2], ARGV[1]
local known = redis.call('HMGET', state, 'groups', 'in', 'out', 'max')
if not complete(stream, known[1]) then
  return redis.status_reply('GONE')
end
local start, size = known[2], #body + OVERHEAD
if start + size - known[3] > tonumber(known[4]) then
  trim(stream, state)
  if start + size - redis.call('HGET', state, 'out') > tonumber(known[4]) then
    return redis.status_reply('FULL')
  end
end
redis.call('XADD', stream, '*', 'body', body, 'start', start)
redis.call('HINCRBY', state, 'in', size)
return redis.status_reply('OK')
