-- KEYS  leases of the content; who has it, if the replica now has it
-- ARGV  replica, token, remember (ms), most that have it
-- Returns 1, or 0 if the lease was not the replica's any more: then nothing is written.
local now = micros()
local ends, _, _, who = lease(redis.call('HGET', KEYS[1], ARGV[2]))
if not alive(ends, now) or who ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[2])
if KEYS[2] then hold(KEYS[2], ARGV[1], math.floor(now / 1000), ARGV[3], ARGV[4]) end
return 1
