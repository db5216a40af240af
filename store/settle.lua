-- Add batches to their producers' settled without counting them, each once.
--
-- KEYS: 1 producers; then per batch: its producer's hash, its chunk of seen bits, its chunk of dead bits.
-- ARGV: horizon in ms; then per batch: producer's id, bit, at in ms, number of rates, opened.

local horizon = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local batches = (#KEYS - 1) / 3

local function whole(value)
  return string.match(value or '0', '^%d+$') and tonumber(value or 0) < 2^53
end

redis.call('ZCARD', KEYS[1])
for b = 1, batches do
  local key = 3 * b - 1
  local stored = redis.call('HMGET', KEYS[key], 'settled', 'opened')
  redis.call('GETBIT', KEYS[key + 1], 0)
  redis.call('GETBIT', KEYS[key + 2], 0)
  if not whole(stored[1]) or not whole(stored[2]) then return redis.error_reply('REFUSED a producer holds no numbers') end
end

local function keep(key, until_ms)
  if redis.call('PEXPIRETIME', key) < until_ms then redis.call('PEXPIREAT', key, string.format('%.0f', until_ms)) end
end

for b = 1, batches do
  local key, at = 3 * b - 1, 2 + 5 * (b - 1)
  local bit = ARGV[at + 1]
  if redis.call('GETBIT', KEYS[key + 1], bit) == 0 and redis.call('GETBIT', KEYS[key + 2], bit) == 0 then
    local opened = math.max(tonumber(redis.call('HGET', KEYS[key], 'opened') or 0), tonumber(ARGV[at + 4]))
    local until_ms = math.max(now, tonumber(ARGV[at + 2])) + horizon
    redis.call('HSET', KEYS[key], 'opened', opened)
    redis.call('HINCRBY', KEYS[key], 'settled', ARGV[at + 3])
    redis.call('SETBIT', KEYS[key + 2], bit, 1)
    redis.call('ZADD', KEYS[1], 'GT', now, ARGV[at])
    keep(KEYS[key], until_ms)
    keep(KEYS[key + 2], until_ms)
  end
end
return now
