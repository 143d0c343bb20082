-- A renewal to another server was aborted: the session that leaves KEYS[1] for the destination
-- ARGV[6] stays.
local value = redis.call('GET', KEYS[1])
if not leaves_for(value, ARGV[6]) then
  return { now, 'not_found' }
end
local record, old_keys = leaving_record(value)
store(KEYS[1], record, last_seen(record), old_keys)
return { now, 'applied' }
