-- Reads the session KEYS[1], or what its old id KEYS[2] leads to. ARGV[5]: 'use' notes a use of it, 'peek' does not.
-- ARGV[6]: 'whole', or 'head' for as much as says when it ends.
-- Returns the time, the record, and if there is none, the alias.
local record
if ARGV[6] == 'whole' then
  record = redis.call('GET', KEYS[1]) or ''
else
  record = redis.call('GETRANGE', KEYS[1], 0, HEAD - 1)
end
if record == '' then
  return { now, false, redis.call('GET', KEYS[2]) }
elseif not lives(record) then
  return { now }
end
if ARGV[5] == 'use' and #record >= SHORTEST and now > last_seen(record) then
  -- A server without memory still reads: the use that it cannot note lets the session die earlier, not later.
  local noted = redis.pcall('SETRANGE', KEYS[1], LAST_SEEN, struct.pack('<i8', now))
  if type(noted) ~= 'table' then
    keep_until(KEYS[1], deadline(record, now))
  elseif not noted.err:find('^OOM') then
    return noted
  end
end
return { now, record }
