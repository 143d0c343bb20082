-- Moves the manual clock KEYS[1] on to this time unless it is further already, and returns what it
-- says.
local now = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), tonumber(ARGV[1]))
redis.call('SET', KEYS[1], string.format('%.0f', now))
return { string.format('%.0f', now) }
