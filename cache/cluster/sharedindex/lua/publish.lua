-- KEYS  the claim; who has the digest
-- ARGV  generation, size, remember (ms), token of the claim
-- Returns 1, or 0 if a newer token was granted or a newer object published.
local generation, token = tonumber(ARGV[1]), tonumber(ARGV[4])
local last = number(redis.call('HGET', KEYS[1], 'last'))
if (last or 0) > token or (stored(KEYS[2]) or 0) > generation then return 0 end
redis.call('HSET', KEYS[2], 'stored', ARGV[1] .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if last == token then redis.call('HSET', KEYS[1], 'ends', '0') end
return 1
