-- KEYS  the epoch of the scope
-- ARGV  how long it is kept (ms): longer than a decision may take
-- The epoch is later than any that was handed out. What was granted under an earlier one
-- does not count, with this epoch or without one.
local epoch = newer(number(redis.call('GET', KEYS[1])), micros())
redis.call('SET', KEYS[1], text(epoch), 'PX', ARGV[1])
return 1
