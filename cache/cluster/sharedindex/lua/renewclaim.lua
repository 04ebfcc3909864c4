-- KEYS  the claim
-- ARGV  token, from now (us): 0 ends it, kept (ms)
-- Returns 1, or 0 if the claim is another's or ran out.
local now = micros()
local claim = redis.call('HMGET', KEYS[1], 'last', 'ends')
local last, ends = number(claim[1]), number(claim[2])
if last ~= tonumber(ARGV[1]) or not alive(ends, now) then return 0 end
redis.call('HSET', KEYS[1], 'ends', text(now + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
