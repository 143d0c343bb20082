-- Replaces the session KEYS[1] if it still is what the client has seen. KEYS[2]: the index that it
-- is inserted into, if any. ARGV[11]: the prefix of what was seen, without the last use; empty:
-- nothing was seen yet. ARGV[12]: the new record. Returns the same as create_session.lua, and the
-- stored record on a mismatch.
local header, old_keys = read_prefix(KEYS[1])
if header:byte(1) == LEAVING then
  return { now, 'relocating' }
elseif not is_live(header) then
  return { now, 'not_found' }
elseif not matches_prefix(header, ARGV[11]) then
  local record = read_value(KEYS[1])
  if not is_same_write(record, ARGV[12]) then return { now, 'mismatch', record } end
  write_again(KEYS[1])
  return { now, 'applied', last_seen(record), 0 }
elseif is_late() then
  return { now, 'clock_skew' }
end
local used, ended, dropped = math.max(now, last_seen(header)), 0, ''
store(KEYS[1], ARGV[12], used, (trim_old_keys(old_keys, 0)))
if KEYS[2] then
  insert(KEYS[2])
  ended, dropped = evict_excess(KEYS[2], KEYS[1])
end
return { now, 'applied', used, ended, dropped }
