-- KEYS  the epoch of the scope; the permission
-- ARGV  epoch, permission, its TTL (ms)
-- Returns 1, or 0 if the epoch is another one: then nothing is written.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
