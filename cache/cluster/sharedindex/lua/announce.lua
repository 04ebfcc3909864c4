-- KEYS  the stream
-- ARGV  about how many are kept, replica, payload
-- The entries are counted, so that who reads sees if some are missing. Their IDs are
-- times: those of a stream that lost its end, or all, are still larger than the old ones.
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local count = 0
if tail[1] then
	local fields = tail[1][2]
	for i = 1, #fields, 2 do
		if fields[i] == 'n' then count = number(fields[i + 1]) or 0 end
	end
end
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'n', text(count + 1), 'replica', ARGV[2], 'payload', ARGV[3])
