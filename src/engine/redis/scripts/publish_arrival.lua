-- The third step of a renewal to another server, which decides it: the record ARGV[6] that was
-- prepared under the new key KEYS[1] becomes the session. Too late, it was aborted.
local current = redis.call('GET', KEYS[1])
if current and current:byte(1) == ARRIVING and current:sub(ARRIVING_RECORD) == ARGV[6] then
  if now >= struct.unpack('<i8', current, 2) then return { now, 'aborted' } end
  store(KEYS[1], ARGV[6], last_seen(ARGV[6]))
elseif current and is_same_write(current, ARGV[6]) then
  write_again(KEYS[1])
else
  return { now, 'aborted' }
end
return { now, 'applied' }
