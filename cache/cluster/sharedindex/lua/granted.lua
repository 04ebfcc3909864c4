-- KEYS  the epoch of the scope; the permission
-- ARGV  how long an epoch is kept at least (ms)
-- Returns {epoch, permission or '', how much longer that is kept (ms)}. An epoch that is not there, or was lost, begins: it
-- is a time, so what was granted under an earlier one does not count.
local epoch = number(redis.call('GET', KEYS[1]))
if not epoch then
	epoch = micros()
	redis.call('SET', KEYS[1], text(epoch), 'PX', ARGV[1])
elseif redis.call('PTTL', KEYS[1]) < ARGV[1] / 2 then
	redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return { text(epoch), redis.call('GET', KEYS[2]) or '', text(math.max(redis.call('PTTL', KEYS[2]), 0)) }
