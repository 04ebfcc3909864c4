-- KEYS  the epoch of the scope; the permission
-- ARGV  epoch, permission, its TTL (ms), how long a decision may take (ms)
-- Returns 1, or 0 if the epoch is another one: then nothing is written. Where there is
-- none, the scope was not revoked for longer than a decision may take, see revoke.lua, so
-- an epoch that is not older than that begins.
local epoch, asked, keep = number(redis.call('GET', KEYS[1])), number(ARGV[1]), ARGV[3] + ARGV[4]
if epoch then
	if epoch ~= asked then return 0 end
else
	local now = micros()
	if not asked or asked >= now or asked < now - ARGV[4] * 1000 then return 0 end
end
redis.call('SET', KEYS[2], text(asked) .. ' ' .. ARGV[2], 'PX', ARGV[3])
-- Who reads the permission last may still grant another one.
if not epoch then
	redis.call('SET', KEYS[1], text(asked), 'PX', text(keep))
elseif redis.call('PTTL', KEYS[1]) < keep then
	redis.call('PEXPIRE', KEYS[1], text(keep))
end
return 1
