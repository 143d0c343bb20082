-- Stores the new session KEYS[1] unless the key is taken, and inserts it into the index KEYS[2] of
-- its principal, if it has one. ARGV[11]: the record. ARGV[12]: not empty if the session may be
-- stored although it was revoked before. Returns the time, the outcome, the last use, how many other
-- sessions were ended, and old keys whose aliases end with them.
local current = redis.call('GET', KEYS[1])
if current and current:byte(1) == REVOKED then
  if ARGV[12] == '' then return { now, 'revoked' } end
elseif current then
  if not is_same_write(current, ARGV[11]) then return { now, 'taken' } end
  write_again(KEYS[1])
  return { now, 'applied', last_seen(with_time(KEYS[1], current)), 0 }
end
if is_late() then
  return { now, 'clock_skew' }
end
local ended, dropped = 0, ''
store(KEYS[1], ARGV[11], last_seen(ARGV[11]))
if KEYS[2] then
  insert(KEYS[2])
  ended, dropped = evict_excess(KEYS[2], KEYS[1])
end
return { now, 'applied', last_seen(ARGV[11]), ended, dropped }
