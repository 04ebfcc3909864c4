-- KEYS  the replicas
-- ARGV  replica, status, until it is gone (ms)
local now = math.floor(micros() / 1000)
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
	local at = number(string.match(all[i + 1], '^%d+'))
	if not at or at + ARGV[3] <= now then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('HSET', KEYS[1], ARGV[1], text(now) .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
