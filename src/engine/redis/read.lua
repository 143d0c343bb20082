-- Reads the session KEYS[1], or its alias ARGV[7], which is on the same server. (As a second key it would keep the session
-- from being read while a Cluster moves its slot.) ARGV[5]: 'use' notes a use of it, 'peek' does not. ARGV[6]: 'whole', or
-- 'head' for as much as says when it ends.
-- Returns the time, the record, if there is none the alias, and the record's length.
local record
if ARGV[6] == 'whole' then
  record = redis.call('GET', KEYS[1]) or ''
else
  record = redis.call('GETRANGE', KEYS[1], 0, HEAD - 1)
end
if record == '' then
  return { now, false, redis.call('GET', ARGV[7]) }
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
return { now, record, false, redis.call('STRLEN', KEYS[1]) }
