-- KEYS  the replicas
-- Returns {time (ms), name, "time status", name, ...}
local reply = { text(math.floor(micros() / 1000)) }
for _, s in ipairs(redis.call('HGETALL', KEYS[1])) do reply[#reply + 1] = s end
return reply
