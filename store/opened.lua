-- Sum up over all producers; writes nothing. The hashes' names are made here: they carry the hash tag of KEYS[1].
--
-- KEYS: 1 producers. ARGV: what precedes a producer's id in the name of its hash.
-- Answer: rates opened, rates abandoned.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local opened, abandoned = 0, 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local of = redis.call('HMGET', ARGV[1] .. id, 'opened', 'confirmed', 'settled', 'lease_until')
  local settled = tonumber(of[3] or 0)
  local unsettled = math.max(0, tonumber(of[1] or 0) - settled)
  local still = unsettled
  if tonumber(of[4] or 0) <= now then still = math.max(0, tonumber(of[2] or 0) - settled) end
  opened, abandoned = opened + still, abandoned + unsettled - still
end
return {opened, abandoned}
