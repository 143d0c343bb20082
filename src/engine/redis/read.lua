-- Reads the session KEYS[1], or its alias ARGV[7], which is on the same server. (As a second key it would keep the session
-- from being read while a Cluster moves its slot.) ARGV[5]: 'use' notes a use of it, 'peek' does not. ARGV[6]: 'whole', or
-- 'head' for as much as says when it ends.
-- Returns the time, the record, if there is none the alias, and the record's length.
local is_whole = ARGV[6] == 'whole'
local record = is_whole and redis.call('GET', KEYS[1]) or redis.call('GETRANGE', KEYS[1], 0, HEAD - 1)
if record == '' then
  return { now, false, redis.call('GET', ARGV[7]) }
end
if #record >= SHORTEST then
  local ends, seen = deadline(record)
  if now >= ends then
    return { now }
  elseif ARGV[5] == 'use' and now > seen then
    -- A server without memory still reads: the use that it cannot note lets the session die earlier, not later.
    local noted = redis.pcall('SETRANGE', KEYS[1], LAST_SEEN, struct.pack('<i8', now))
    if type(noted) ~= 'table' then
      keep_until(KEYS[1], (deadline(record, now)))
    elseif not noted.err:find('^OOM') then
      return noted
    end
  end
end
return { now, record, false, not is_whole and redis.call('STRLEN', KEYS[1]) }
