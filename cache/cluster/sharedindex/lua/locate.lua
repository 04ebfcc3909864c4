-- KEYS  leases of the content; who has the digest; who has the content, if it is another
-- ARGV  replica, off, end, insist, over, lease (us), remember (ms), kept (ms), most leases, most holders
-- Returns {what, token, from, to, whose, generation, size, holder...}
local now = micros()
local me, off, stop = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local insist, over = ARGV[4] == '1', ARGV[5]
local remember = tonumber(ARGV[7])

-- Leases: the live one at off, and where the next one begins.
local last, count, at = nil, 0, nil
local leases = redis.call('HGETALL', KEYS[1])
for i = 1, #leases, 2 do
	local token, value = leases[i], leases[i + 1]
	if token == 'last' then
		last = number(value)
	else
		local ends, from, to, who = lease(value)
		if not alive(ends, now) or not number(token) or token == over then
			redis.call('HDEL', KEYS[1], token)
		else
			count = count + 1
			if from <= off and off < to then at = { token, text(from), text(to), who } end
			if off < from then stop = math.min(stop, from) end
		end
	end
end

-- Who has it.
local since, names = {}, {}
for i = 2, #KEYS do
	local has = redis.call('HGETALL', KEYS[i])
	for j = 1, #has, 2 do
		local name, time = string.match(has[j], '^@(.+)$'), number(has[j + 1])
		if name and said(time, now) and name ~= me and time + remember > now / 1000 then
			if not since[name] then names[#names + 1] = name end
			since[name] = math.max(since[name] or 0, time)
		end
	end
	-- What is asked for is remembered; not written at each question.
	if #has > 0 and redis.call('PTTL', KEYS[i]) < remember / 2 then
		redis.call('PEXPIRE', KEYS[i], ARGV[7])
	end
end
table.sort(names, function(a, b)
	if since[a] ~= since[b] then return since[a] > since[b] end
	return a < b
end)
local generation, size = stored(KEYS[2])

local reply = { 'none', '0', '0', '0', '', text(generation or 0), text(size or 0) }
if at then
	reply[1], reply[2], reply[3], reply[4], reply[5] = 'fetching', at[1], at[2], at[3], at[4]
elseif (insist or not generation and #names == 0) and count < tonumber(ARGV[9]) then
	local token = text(newer(last, now))
	local ends = text(now + ARGV[6])
	redis.call('HSET', KEYS[1], 'last', token, token, ends .. ' ' .. text(off) .. ' ' .. text(stop) .. ' ' .. me)
	redis.call('PEXPIRE', KEYS[1], ARGV[8])
	reply[1], reply[2], reply[3], reply[4], reply[5] = 'lease', token, text(off), text(stop), me
end
for i = 1, math.min(#names, tonumber(ARGV[10])) do reply[#reply + 1] = names[i] end
return reply
