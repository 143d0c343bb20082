-- Notes a session in the list KEYS[1] of its principal, before it is stored. ARGV[5]: its key, ARGV[6]: when it ends at the
-- latest. What has ended so long ago that no clock can be so wrong is taken out, and the list ends with its last session.
local SLACK = 60000
local ends = tonumber(ARGV[6])
local now_ends = redis.call('PEXPIRETIME', KEYS[1])
redis.call('ZADD', KEYS[1], 'GT', ends, ARGV[5])
if not by_hand then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now - SLACK))
  -- -1: it never ends; -2: there was none.
  if now_ends ~= -1 and now_ends < ends + SLACK then keep_until(KEYS[1], ends + SLACK) end
end
return { now }
