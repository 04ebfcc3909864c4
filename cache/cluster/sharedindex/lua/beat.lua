-- KEYS  the replicas
-- ARGV  replica, status, until it is gone (ms)
-- Returns what the replica said of itself before, in a list, which is empty if it did not.
local now = micros()
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
	local at = number(string.match(all[i + 1], '^%d+'))
	if not said(at, now) or at + ARGV[3] <= now / 1000 then redis.call('HDEL', KEYS[1], all[i]) end
end
local before = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], text(math.floor(now / 1000)) .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return before and { string.match(before, '^%d+ (.*)$') or '' } or {}
