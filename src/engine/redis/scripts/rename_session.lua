-- Moves the session KEYS[1], if it still is what the client has seen, to the new key KEYS[2]; its
-- old id becomes an alias, if there is one. KEYS[3]: the index of its principal, if it has one.
-- ARGV[11]: the prefix of what was seen, ARGV[12]: the new record, ARGV[13]: the alias or nothing,
-- ARGV[14]: its end, ARGV[15]: the old key, ARGV[16]: the key of mark_revocation.lua. Returns the
-- same as create_session.lua, and the stored record on a mismatch.
local target = redis.call('GET', KEYS[2])
if target and is_same_write(target, ARGV[12]) then
  write_again(KEYS[2])
  return { now, 'applied', last_seen(with_time(KEYS[2], target)), 0 }
end
local header, old_keys = read_prefix(KEYS[1])
if not is_live(header) then
  return { now, 'not_found' }
elseif #header >= HEADER and is_being_revoked(header, ARGV[16]) then
  return { now, 'revoked' }
elseif not matches_prefix(header, ARGV[11]) then
  return { now, 'mismatch', (read_value(KEYS[1])) }
elseif is_late() then
  return { now, 'clock_skew' }
elseif target then
  return { now, 'taken' }
end
local ended, evicted, dropped = 0, '', ''
old_keys, dropped = push_old_key(old_keys, ARGV[15], tonumber(ARGV[14]))
store(KEYS[2], ARGV[12], last_seen(ARGV[12]), old_keys)
if ARGV[13] ~= '' then
  store_alias(KEYS[1], ARGV[13], tonumber(ARGV[14]))
else
  redis.call('DEL', KEYS[1])
end
if KEYS[3] then
  insert(KEYS[3])
  ended, evicted = evict_excess(KEYS[3], KEYS[2])
end
return { now, 'applied', last_seen(ARGV[12]), ended, dropped .. evicted }
