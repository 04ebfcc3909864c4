-- Stands before each of the other scripts.
-- Numbers are doubles: exact up to LIMIT, and to be written by text(), because Lua's own
-- way to make them strings keeps 14 digits. A value that is not what it has to be counts
-- as none: whoever can write to Redis may have put it there.
local LIMIT = 9007199254740991
local DAY = 86400000000 -- in microseconds

local function text(n) return string.format('%.0f', n) end

local function number(s)
	local n = s and string.match(s, '^%d+$') and tonumber(s)
	if n and n < LIMIT then return n end
	return nil
end

-- The time of Redis in microseconds; it stands still while a script runs.
local function micros()
	local t = redis.call('TIME')
	return t[1] * 1000000 + t[2]
end

-- A token that is larger than the last one, also if the last one was lost.
local function newer(last, now) return math.max((last or 0) + 1, now) end

-- Whether what ends then is alive. No lease is longer than a day: one that ends later was
-- not written by a replica, or the clock went back far.
local function alive(ends, now) return ends and ends > now and ends <= now + DAY end

-- Whether a time in milliseconds is one at which something may have been said. Clocks may
-- go back a little.
local function said(time, now) return time and time <= (now + DAY) / 1000 end

-- The parts of a lease: when it ends, from where to where it is, whose it is.
local function lease(value)
	if not value then return nil end
	local ends, from, to, who = string.match(value, '^(%d+) (%d+) (%d+) (%S+)$')
	ends, from, to = number(ends), number(from), number(to)
	if ends and from and to then return ends, from, to, who end
	return nil
end

-- The generation and the size of what is stored.
local function stored(key)
	local value = redis.call('HGET', key, 'stored')
	if not value then return nil end
	local generation, size = string.match(value, '^(%d+) (%d+)$')
	generation, size = number(generation), number(size)
	if generation and size then return generation, size end
	return nil
end

-- Writes that a replica has it, now (in milliseconds). Of more than max that have it,
-- the one that said so first is forgotten.
local function hold(key, replica, now, remember, max)
	redis.call('HSET', key, '@' .. replica, text(now))
	redis.call('PEXPIRE', key, remember)
	if redis.call('HLEN', key) <= tonumber(max) then return end
	local all, count, oldest, since = redis.call('HGETALL', key), 0, nil, nil
	for i = 1, #all, 2 do
		if string.sub(all[i], 1, 1) == '@' then
			local at = number(all[i + 1])
			if not said(at, now * 1000) then at = 0 end
			count = count + 1
			if not since or at < since then oldest, since = all[i], at end
		end
	end
	if count > tonumber(max) then redis.call('HDEL', key, oldest) end
end
