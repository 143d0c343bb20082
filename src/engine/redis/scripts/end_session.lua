-- Ends the session KEYS[1], wherever a renewal has got with it, if it belongs to the principal
-- ARGV[6], was last used at ARGV[7] and was created at ARGV[8] or before; empty: whatever that is.
-- ARGV[9]: not empty if, should there be none, it must not be stored any more, because it may be in
-- its principal's index already: the key is taken until such a write comes too late. ARGV[10]: not
-- empty if only a session that arrives is ended, so that what leaves for it stays. Returns the
-- time, the outcome, whether it lived, the key that it was leaving for, and the old keys whose
-- aliases end with it.
local kind = redis.call('GETRANGE', KEYS[1], 0, 0):byte()
if not kind or kind == REVOKED then
  if ARGV[9] ~= '' then redis.call('SET', KEYS[1], string.char(REVOKED), 'NX', 'PX', 10000) end
  return { now, 'not_found' }
end
local record, old_keys, destination = nil, '', false
if kind == LEAVING then
  local value = redis.call('GET', KEYS[1])
  record, old_keys = leaving_record(value)
  destination = value:sub(2, 33)
elseif kind == ARRIVING then
  record = redis.call('GET', KEYS[1]):sub(ARRIVING_RECORD)
else
  record, old_keys = read_prefix(KEYS[1])
end
if not is_record(record) or #record < HEADER
  or (ARGV[6] ~= '' and not has_principal(record, ARGV[6]))
  or (ARGV[7] ~= '' and (kind == LEAVING or kind == ARRIVING or tonumber(ARGV[7]) ~= last_seen(record)))
  or (ARGV[8] ~= '' and not is_created_before(record, tonumber(ARGV[8])))
  or (ARGV[10] ~= '' and kind ~= ARRIVING) then
  return { now, 'other' }
elseif kind == ARRIVING then
  -- What leaves for it comes back, unless it is ended as well.
  redis.call('SET', KEYS[1], string.char(REVOKED), 'KEEPTTL')
  return { now, 'applied', 0 }
end
redis.call('DEL', KEYS[1])
return { now, 'applied', is_live(record) and 1 or 0, destination, old_keys }
