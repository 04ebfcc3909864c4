-- KEYS  the claim; who has the digest
-- ARGV  replica, claim (us), kept (ms)
-- Returns the token, or '0' if it is stored or somebody is at it.
local now = micros()
if stored(KEYS[2]) then return '0' end
local claim = redis.call('HMGET', KEYS[1], 'last', 'ends')
local last, ends = number(claim[1]), number(claim[2])
if last and alive(ends, now) then return '0' end
local token = text(newer(last, now))
redis.call('HSET', KEYS[1], 'last', token, 'ends', text(now + ARGV[2]), 'replica', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return token
