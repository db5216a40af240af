-- Report producers as alive.
--
-- KEYS: 1 producers; then a hash per producer.
-- ARGV: horizon and lease in ms; then per producer: id, opened, confirmed.

local horizon, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

for p = 2, #KEYS do
  local at = 3 * (p - 1)
  local stored = redis.call('HMGET', KEYS[p], 'opened', 'confirmed')
  local opened = math.max(tonumber(stored[1] or 0), tonumber(ARGV[at + 1]))
  local confirmed = math.max(tonumber(stored[2] or 0), tonumber(ARGV[at + 2]))
  redis.call('HSET', KEYS[p], 'opened', opened, 'confirmed', confirmed, 'lease_until', now + lease)
  local until_ms = now + lease + horizon
  if redis.call('PEXPIRETIME', KEYS[p]) < until_ms then
    redis.call('PEXPIREAT', KEYS[p], string.format('%.0f', until_ms))
  end
  redis.call('ZADD', KEYS[1], 'GT', now + lease, ARGV[at])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - horizon)
return now
