-- KEYS  leases of the content
-- ARGV  replica, token, lease (us), kept (ms)
-- Returns 1, or 0 if the lease is not the replica's any more.
local now = micros()
local ends, from, to, who = lease(redis.call('HGET', KEYS[1], ARGV[2]))
if not alive(ends, now) or who ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], text(now + ARGV[3]) .. ' ' .. text(from) .. ' ' .. text(to) .. ' ' .. who)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
