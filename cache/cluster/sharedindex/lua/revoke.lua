-- KEYS  the epoch of the scope
-- ARGV  how long an epoch is kept at least (ms)
local epoch = newer(number(redis.call('GET', KEYS[1])), micros())
redis.call('SET', KEYS[1], text(epoch), 'PX', ARGV[1])
return 1
