-- KEYS  the claim; who has the digest
-- ARGV  generation, size, remember (ms)
-- Returns 1, or 0 if a newer token was granted or published.
local generation = tonumber(ARGV[1])
local last = number(redis.call('HGET', KEYS[1], 'last'))
if (last or 0) > generation or (stored(KEYS[2]) or 0) > generation then return 0 end
redis.call('HSET', KEYS[2], 'stored', ARGV[1] .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if last == generation then redis.call('HSET', KEYS[1], 'ends', '0') end
return 1
