-- Stores the new session KEYS[1], unless the key or its alias ARGV[11] is taken; in the list KEYS[2] of its principal, if it
-- has one. ARGV[10]: the record.
-- Returns the time, what came of it, and what is there if the key is taken, or how many others were ended.
if redis.call('EXISTS', KEYS[1]) + redis.call('EXISTS', ARGV[11]) > 0 then
  return { now, 'taken', record_of(KEYS[1]) }
elseif is_late() then
  return { now, 'late' }
end
local ended = 0
store(KEYS[1], ARGV[10], last_seen(ARGV[10]))
if KEYS[2] then
  join(KEYS[2])
  ended = end_surplus(KEYS[2], KEYS[1])
end
return { now, 'done', now, ended }
