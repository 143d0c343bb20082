-- Replaces the session KEYS[1], or moves it away, if it still is what the client has seen and has no alias KEYS[2].
-- ARGV[5]: the first bytes of what was seen, without the last use; none: nothing was seen yet.
-- ARGV[6]: the new record; none: the session moves to another key, and what comes next is left here for its old id:
-- ARGV[7]: an alias, or none, and ARGV[8]: its end. Until the session is at its new key it still reads here.
-- Returns the time, what came of it, and what is there if it is something else, or when the session was used last.
local head = redis.call('GETRANGE', KEYS[1], 0, HEAD - 1)
if head == '' or redis.call('EXISTS', KEYS[2]) == 1 or not lives(head) then
  return { now, 'gone' }
end
if head:sub(1, LAST_SEEN) .. head:sub(LAST_SEEN + 9) ~= ARGV[5] then
  return { now, 'other', redis.call('GET', KEYS[1]) }
end
local seen = math.max(now, last_seen(head))
if ARGV[6] ~= '' then
  if is_late() then
    return { now, 'late' }
  end
  redis.call('SET', KEYS[1], ARGV[6])
  slide_to(KEYS[1], ARGV[6], seen)
elseif ARGV[7] ~= '' then
  local ends = tonumber(ARGV[8])
  redis.call('SET', KEYS[2], ARGV[7])
  keep_until(KEYS[2], ends)
  keep_until(KEYS[1], math.min(ends, deadline(head, seen)))
else
  redis.call('DEL', KEYS[1])
end
return { now, 'done', seen }
