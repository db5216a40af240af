-- Put before the other scripts. `stream` is a topic's key, `state` the hash beside it: `in` and `out` count the bytes of
-- all messages that ever came and went, `max` bounds what lies between, `groups` is how many groups there must be.

-- Redis adds about this many bytes to each body.
local OVERHEAD = 64

local function lower(a, b)
  return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
end

local function parsed(id)
  local ms, number = id:match('(%d+)-(%d+)')
  return {tonumber(ms), tonumber(number)}
end

-- Whether every group that was made is there still.
local function complete(stream, groups)
  local found = redis.pcall('XINFO', 'GROUPS', stream)
  return not found.err and groups and #found == tonumber(groups) and found
end

-- Remove what every group has acknowledged, and nothing while a group is missing.
local function trim(stream, state)
  local groups = complete(stream, redis.call('HGET', state, 'groups'))
  if not groups then
    return
  end
  local least
  for _, group in ipairs(groups) do
    local name, pending, delivered = group[2], group[6], group[8]
    local needed
    if pending > 0 then
      needed = parsed(redis.call('XPENDING', stream, name)[2])
    else
      needed = parsed(delivered)
      needed[2] = needed[2] + 1
    end
    if not least or lower(needed, least) then
      least = needed
    end
  end
  if least and redis.call('XTRIM', stream, 'MINID', string.format('%.0f-%.0f', least[1], least[2])) > 0 then
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    redis.call('HSET', state, 'out', first and first[2][4] or redis.call('HGET', state, 'in'))
  end
end
