-- One subject at one moment; writes nothing. The minutes' names are made here: they carry the hash tag of KEYS[1].
--
-- KEYS: 1 the subject's hash. ARGV: its name, what precedes a minute in the name of its hash, how many minutes.
-- Answer: this minute, the hash's fields and values, the counts of the minutes up to this one.

local minute = math.floor(redis.call('TIME')[1] / 60)
local counts = {}
for back = ARGV[3] - 1, 0, -1 do
  counts[#counts + 1] = redis.call('HGET', ARGV[2] .. string.format('%d', minute - back), ARGV[1]) or '0'
end
return {minute, redis.call('HGETALL', KEYS[1]), counts}
