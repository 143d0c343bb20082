-- Locks the index KEYS[1] against inserts for ARGV[7] ms by a member of its own, ARGV[6], which its
-- owner removes. Sessions have scores of 0 and above; a lock has the time of its end, negated.
-- Several locks may be there at once.
local ends, is_new = now + tonumber(ARGV[7]), redis.call('EXISTS', KEYS[1]) == 0
redis.call('ZADD', KEYS[1], -ends, ARGV[6])
local index_ends = redis.call('PEXPIRETIME', KEYS[1])
if is_new or (index_ends ~= -1 and index_ends < ends) then expire_at(KEYS[1], ends + 1) end
return { now, 'applied' }
