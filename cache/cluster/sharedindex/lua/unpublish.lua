-- KEYS  who has the digest
-- ARGV  generation
-- Returns 1, or 0 if that was not the one that is published.
if stored(KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
return redis.call('HDEL', KEYS[1], 'stored')
