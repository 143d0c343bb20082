-- Ends the session KEYS[1] of the principal ARGV[6], wherever a renewal has got with it. If there
-- is none it must not be stored any more, because it may be in the index already: the key is taken
-- until such a write comes too late. ARGV[7]: only if it was last used at this time, or nothing.
-- Returns the time, the outcome, whether it lived, the key that it was leaving for, and the old keys
-- whose aliases end with it.
local value = redis.call('GET', KEYS[1])
if not value or value:byte(1) == REVOKED then
  redis.call('SET', KEYS[1], string.char(REVOKED), 'NX', 'PX', 10000)
  return { now, 'not_found' }
end
local record, old_keys = value, ''
if value:byte(1) == LEAVING then
  record, old_keys = leaving_record(value)
elseif value:byte(1) == ARRIVING then
  record = value:sub(ARRIVING_RECORD)
else
  record, old_keys = read_value(KEYS[1])
end
local is_unused = ARGV[7] == '' or (is_record(value) and #record >= HEADER and tonumber(ARGV[7]) == last_seen(record))
if not is_record(record) or #record < HEADER or not has_principal(record, ARGV[6]) or not is_unused then
  return { now, 'other' }
elseif value:byte(1) == ARRIVING then
  -- What leaves for it comes back, unless it is ended as well.
  redis.call('SET', KEYS[1], string.char(REVOKED), 'KEEPTTL')
  return { now, 'applied', 0 }
end
redis.call('DEL', KEYS[1])
return { now, 'applied', is_live(record) and 1 or 0, value:byte(1) == LEAVING and value:sub(2, 33), old_keys }
