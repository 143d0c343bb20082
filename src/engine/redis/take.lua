-- Takes the session KEYS[1] away, if it still is what the client has seen, to be stored on another server. ARGV[5]: the first
-- bytes of what was seen. ARGV[6]: the alias that its old id becomes, or nothing; ARGV[7]: its name, ARGV[8]: its end. ARGV[9]:
-- the name of where the old id reads the session until it has arrived.
-- Returns the time, what came of it, and what is there if it is something else.
local head = head_of(KEYS[1])
if not lives(head) then
  return { now, 'gone' }
elseif not is_as_seen(head, ARGV[5]) then
  return { now, 'other', record_of(KEYS[1]) }
elseif is_late() then
  return { now, 'late' }
end
if ARGV[6] ~= '' then
  local ends = tonumber(ARGV[8])
  redis.call('SET', ARGV[7], ARGV[6])
  keep_until(ARGV[7], ends)
  -- What it has for an expiry there does not tell its last use.
  redis.call('SETRANGE', KEYS[1], LAST_SEEN, struct.pack('<i8', last_seen(head)))
  redis.call('RENAME', KEYS[1], ARGV[9])
  keep_until(ARGV[9], math.min(ends, (deadline(head))))
else
  redis.call('DEL', KEYS[1])
end
return { now, 'done' }
