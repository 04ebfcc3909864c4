-- KEYS  the epoch of the scope; the permission
-- ARGV  how long those who ask at about the same time get the same new epoch (us)
-- Returns {epoch, permission or '', how much longer that is kept (ms)}, and writes
-- nothing: whoever asks may have made up the credential. A scope without an epoch has
-- nothing granted, and gets one that is about the time, but before now, so that one of a
-- revocation that comes is another; grant.lua begins it.
local epoch = number(redis.call('GET', KEYS[1]))
if not epoch then
	local now = micros()
	return { text(now - now % ARGV[1] - 1), '', '0' }
end
local value, under = redis.call('GET', KEYS[2]) or '', text(epoch) .. ' '
if string.sub(value, 1, #under) ~= under then return { text(epoch), '', '0' } end
return { text(epoch), string.sub(value, #under + 1), text(math.max(redis.call('PTTL', KEYS[2]), 0)) }
