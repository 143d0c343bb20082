-- Moves the session KEYS[1], if it still is what the client has seen, to the new key KEYS[3], if that and its alias KEYS[4] are
-- free; its old id becomes the alias KEYS[2], if there is one. KEYS[5]: the list of its principal, if it has one.
-- ARGV[10]: the first bytes of what was seen, ARGV[11]: the new record, ARGV[12]: the alias or nothing, ARGV[13]: its end.
-- Returns the same as write.lua.
local head = head_of(KEYS[1])
if not lives(head) then
  return { now, 'gone' }
elseif not is_as_seen(head, ARGV[10]) then
  return { now, 'other', record_of(KEYS[1]) }
elseif is_late() then
  return { now, 'late' }
elseif redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then
  return { now, 'taken' }
end
local ended = 0
store(KEYS[3], ARGV[11], last_seen(ARGV[11]))
redis.call('DEL', KEYS[1])
if KEYS[5] then
  join(KEYS[5])
  ended = end_surplus(KEYS[5], KEYS[3])
end
if ARGV[12] ~= '' then
  redis.call('SET', KEYS[2], ARGV[12])
  keep_until(KEYS[2], tonumber(ARGV[13]))
end
return { now, 'done', now, ended }
