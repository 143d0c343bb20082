-- Stores the new session KEYS[1], unless the key or its alias KEYS[2] is taken. ARGV[5]: the record, ARGV[6]: its deadline.
-- Returns the time, what came of it, and what is there if the key is taken.
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then
  return { now, 'taken', redis.call('GET', KEYS[1]) }
end
if is_late() then
  return { now, 'late' }
end
redis.call('SET', KEYS[1], ARGV[5])
keep_until(KEYS[1], tonumber(ARGV[6]))
return { now, 'done' }
