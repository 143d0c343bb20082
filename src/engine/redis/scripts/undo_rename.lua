-- Moves the session KEYS[2] back to its old key KEYS[1], unless it was written since it was
-- renamed. KEYS[3]: the index of the principal that it had, if any. ARGV[11]: the record under the
-- new key, ARGV[12]: the one under the old key before, ARGV[13]: the old key, ARGV[14]:
-- the key of mark_revocation.lua.
local target = redis.call('GET', KEYS[2])
if not target or not is_same_write(target, ARGV[11]) then
  return { now, 'not_found' }
end
local _, old_keys = split_old_keys(target)
if old_keys:sub(-OLD_KEY, -9) == ARGV[13] then old_keys = old_keys:sub(1, -OLD_KEY - 1) end
redis.call('DEL', KEYS[2])
if is_being_revoked(target, ARGV[14]) then return { now, 'not_found' } end
store(KEYS[1], ARGV[12], last_seen(ARGV[12]), old_keys)
if KEYS[3] then insert(KEYS[3]) end
return { now, 'applied' }
