-- KEYS  the replicas
-- ARGV  until one is gone (ms)
-- Returns {time (ms), name, "time status", name, ...}
local now = micros()
local reply = { text(math.floor(now / 1000)) }
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
	local at = number(string.match(all[i + 1], '^%d+'))
	if said(at, now) and at + ARGV[1] > now / 1000 then
		reply[#reply + 1], reply[#reply + 2] = all[i], all[i + 1]
	end
end
return reply
