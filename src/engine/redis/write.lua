-- Replaces the session KEYS[1], if it still is what the client has seen. KEYS[2]: the list of the principal to whom it comes.
-- ARGV[10]: the first bytes of what was seen, without the last use; none: nothing was seen yet. ARGV[11]: the new record.
-- Returns the time, what came of it, and what is there if it is something else, or when it was used last and how many
-- others were ended.
local head = head_of(KEYS[1])
if not lives(head) then
  return { now, 'gone' }
elseif not is_as_seen(head, ARGV[10]) then
  return { now, 'other', record_of(KEYS[1]) }
elseif is_late() then
  return { now, 'late' }
end
local seen, ended = math.max(now, last_seen(head)), 0
store(KEYS[1], ARGV[11], seen)
if KEYS[2] then
  join(KEYS[2])
  ended = end_surplus(KEYS[2], KEYS[1])
end
return { now, 'done', seen, ended }
