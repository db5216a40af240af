-- Count a fold if nothing in it is known or expired; otherwise write nothing and say what is.
--
-- Lua is atomic, not transactional: an error half-way leaves the first half written. So this script reads and checks
-- everything first, and its writes cannot fail. Each kind of key is read once (a wrong type raises there), numbers are
-- checked to stay exact, and input is unpacked in slices of at most SLICE items (Lua's stack holds some 8 000).
--
-- KEYS: 1 producers, 2 names, 3 by count, 4 by mean; then a hash per producer; per chunk its seen and its dead bits;
--       a string per idempotency key; a hash per minute; a hash per subject.
-- ARGV: horizon and idempotency time in ms; the number of producers, batches, chunks, keys, minutes, subjects; then
--       per producer:  id, opened
--       per batch:     producer, chunk (both from 1), bit, at in ms, number of rates
--       per minute:    number of pairs, then pairs of subject, count
--       per subject:   name, number of pairs, then pairs: "count" and how many, "sum" and the sum, rate and how many
-- Answer: now in ms, known batches, expired batches, known keys; each by its number from 1.

local SLICE = 500
local EXACT = 2^53
local format = string.format

local horizon, remember = tonumber(ARGV[1]), tonumber(ARGV[2])
local producers, batches, chunks = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local keys, minutes, subjects = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local producer_key = 4
local chunk_key = producer_key + producers
local idempotency_key = chunk_key + 2 * chunks
local minute_key = idempotency_key + keys
local subject_key = minute_key + minutes

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function refuse(why)
  return redis.error_reply('REFUSED ' .. why)
end

local function number(value)
  if not value then return 0 end
  local result = tonumber(value)
  if result and result == math.floor(result) and math.abs(result) < EXACT then return result end
  return nil
end

-- What is known?

local batch_at = 9 + 2 * producers
local known, expired, known_keys, dead = {}, {}, {}, {}
for b = 1, batches do
  local at = batch_at + 5 * (b - 1)
  local chunk = chunk_key + 2 * tonumber(ARGV[at + 1]) - 1
  if redis.call('GETBIT', KEYS[chunk], ARGV[at + 2]) == 1 then
    known[#known + 1] = b
  elseif tonumber(ARGV[at + 3]) < now - horizon then
    expired[#expired + 1] = b
  end
  dead[b] = redis.call('GETBIT', KEYS[chunk + 1], ARGV[at + 2]) == 1
end
for k = 1, keys do
  if redis.call('EXISTS', KEYS[idempotency_key + k]) == 1 then known_keys[#known_keys + 1] = k end
end
if #known + #expired + #known_keys > 0 then return {now, known, expired, known_keys} end

-- Would every write succeed? What is wrong with a key that all batches share makes none of them a culprit.

local function damaged(key, kind)
  local found = redis.call('TYPE', key).ok
  return found ~= 'none' and found ~= kind
end

local function away(key)
  return redis.error_reply('AWAY ' .. key .. ' is damaged')
end

for z = 1, 4 do
  if damaged(KEYS[z], 'zset') then return away(KEYS[z]) end
end
for m = 1, minutes do
  if damaged(KEYS[minute_key + m], 'hash') then return away(KEYS[minute_key + m]) end
end

local settled, opened, keep, kept = {}, {}, {}, {}
for p = 1, producers do
  local stored = redis.call('HMGET', KEYS[producer_key + p], 'settled', 'opened')
  settled[p], opened[p] = number(stored[1]), number(stored[2])
  if not settled[p] or not opened[p] then return refuse('a producer holds no numbers') end
  opened[p] = math.max(opened[p], tonumber(ARGV[9 + 2 * p - 1]))
  keep[p] = now + horizon
  kept[p] = redis.call('PEXPIRETIME', KEYS[producer_key + p])
end

local chunk_keep, chunk_kept = {}, {}
for c = 1, chunks do chunk_kept[c] = redis.call('PEXPIRETIME', KEYS[chunk_key + 2 * c - 1]) end
for b = 1, batches do
  local at = batch_at + 5 * (b - 1)
  local p, c = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  if not dead[b] then settled[p] = settled[p] + tonumber(ARGV[at + 4]) end
  local until_ms = math.max(now, tonumber(ARGV[at + 3])) + horizon
  chunk_keep[c] = math.max(chunk_keep[c] or 0, until_ms)
  keep[p] = math.max(keep[p], until_ms)
end

-- Read the fields at ARGV[from], ARGV[from + 2], ... of a hash and add ARGV[from + 1], ... to each: the arguments of
-- the HSETs that write the sums, or nil if one would not be an exact number. Only a field `sum` may outgrow that: up to
-- 2^62 HINCRBY adds to it in whole 64 bits, and what one call adds cannot overflow it.
local function added(key, from, pairs)
  local writes = {key = key}
  for start = 0, pairs - 1, SLICE do
    local count = math.min(SLICE, pairs - start)
    local fields, at = {}, from + 2 * start
    for i = 1, count do fields[i] = ARGV[at + 2 * i - 2] end
    local stored = redis.call('HMGET', key, unpack(fields))
    local sums, filled = {}, 0
    for i = 1, count do
      local old, delta = stored[i], ARGV[at + 2 * i - 1]
      local sum = tonumber(old or 0)
      sum = sum and sum + delta
      if sum and sum % 1 == 0 and sum < EXACT and sum > -EXACT then
        sums[filled + 1], sums[filled + 2] = fields[i], format('%d', sum)
        filled = filled + 2
      elseif fields[i] == 'sum' and string.match(old or '0', '^%-?%d+$') and math.abs(tonumber(old or 0)) < 2^62 then
        writes.wide_sum = delta
        sum = tonumber(old or 0) + delta
      else
        return nil
      end
      if fields[i] == 'count' then writes.count = sum elseif fields[i] == 'sum' then writes.sum = sum end
    end
    if filled > 0 then writes[#writes + 1] = sums end
  end
  return writes
end

local function write(writes)
  for _, sums in ipairs(writes) do redis.call('HSET', writes.key, unpack(sums)) end
  if writes.wide_sum then redis.call('HINCRBY', writes.key, 'sum', writes.wide_sum) end
end

local cursor = batch_at + 5 * batches
local minute_writes = {}
for m = 1, minutes do
  local pairs = tonumber(ARGV[cursor])
  minute_writes[m] = added(KEYS[minute_key + m], cursor + 1, pairs)
  if not minute_writes[m] then return away(KEYS[minute_key + m]) end
  cursor = cursor + 1 + 2 * pairs
end

-- The scores of the sorted sets, as arguments of one ZADD per slice.
local names, counts, means = {{}}, {{}}, {{}}
local function score(slices, value, name)
  local slice = slices[#slices]
  if #slice == SLICE then
    slice = {}
    slices[#slices + 1] = slice
  end
  slice[#slice + 1], slice[#slice + 2] = value, name
end

local subject_writes = {}
for s = 1, subjects do
  local name, pairs = ARGV[cursor], tonumber(ARGV[cursor + 1])
  if name == '*' and damaged(KEYS[subject_key + s], 'hash') then return away(KEYS[subject_key + s]) end
  local writes = added(KEYS[subject_key + s], cursor + 2, pairs)
  if not writes then
    if name == '*' then return away(KEYS[subject_key + s]) end
    return refuse('subject ' .. name .. ' holds no numbers')
  end
  subject_writes[s] = writes
  if name ~= '*' then
    if writes.count == tonumber(ARGV[cursor + 3]) then score(names, 0, name) end
    score(counts, writes.count, name)
    score(means, writes.sum / writes.count, name)
  end
  cursor = cursor + 2 + 2 * pairs
end

-- Write. HSET first: out of memory is refused at the first write or not at all.

for p = 1, producers do
  local key = KEYS[producer_key + p]
  redis.call('HSET', key, 'settled', settled[p], 'opened', opened[p])
  if kept[p] < keep[p] then redis.call('PEXPIREAT', key, string.format('%.0f', keep[p])) end
  redis.call('ZADD', KEYS[1], 'GT', now, ARGV[9 + 2 * (p - 1)])
end
for b = 1, batches do
  local at = batch_at + 5 * (b - 1)
  redis.call('SETBIT', KEYS[chunk_key + 2 * tonumber(ARGV[at + 1]) - 1], ARGV[at + 2], 1)
end
for c = 1, chunks do
  local key = KEYS[chunk_key + 2 * c - 1]
  if chunk_kept[c] < chunk_keep[c] then
    redis.call('PEXPIREAT', key, string.format('%.0f', chunk_keep[c]))
  end
end
for k = 1, keys do redis.call('SET', KEYS[idempotency_key + k], '', 'PX', ARGV[2]) end
for m = 1, minutes do
  write(minute_writes[m])
  redis.call('PEXPIRE', KEYS[minute_key + m], 7200000)
end
for s = 1, subjects do write(subject_writes[s]) end
for z, slices in ipairs({names, counts, means}) do
  for _, slice in ipairs(slices) do
    if #slice > 0 then redis.call('ZADD', KEYS[z + 1], unpack(slice)) end
  end
end
return {now, known, expired, known_keys}
