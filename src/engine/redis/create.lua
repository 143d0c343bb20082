-- Stores the new session KEYS[1], unless the key or its alias ARGV[12] is taken; in the list KEYS[2] of its principal, if it
-- has one. ARGV[10]: the record, ARGV[11]: its deadline.
-- Returns the time, what came of it, and what is there if the key is taken, or how many others were ended.
if redis.call('EXISTS', KEYS[1]) + redis.call('EXISTS', ARGV[12]) > 0 then
  return { now, 'taken', redis.call('GET', KEYS[1]) }
elseif is_late() then
  return { now, 'late' }
end
local ended = 0
redis.call('SET', KEYS[1], ARGV[10])
if KEYS[2] then
  join(KEYS[2])
  ended = end_surplus(KEYS[2], KEYS[1])
end
keep_until(KEYS[1], tonumber(ARGV[11]))
return { now, 'done', now, ended }
