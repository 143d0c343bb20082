-- The third step of a renewal to another server, which decides it: the record ARGV[6] that was
-- prepared under the new key KEYS[1] becomes the session. Too late, it was aborted; so it is if the
-- session has ended meanwhile, which is at ARGV[10]. ARGV[7]: the old keys that it had; ARGV[8]: its
-- latest, ARGV[9]: when the alias of that ends, or nothing. Returns the time, the outcome, the last use, 0 and old keys whose aliases end.
local dropped = ''
local current = redis.call('GET', KEYS[1])
if current and current:byte(1) == ARRIVING and current:sub(ARRIVING_RECORD) == ARGV[6] then
  if now >= math.min(struct.unpack('<i8', current, 2), tonumber(ARGV[10])) then return { now, 'aborted' } end
  local old_keys
  old_keys, dropped = push_old_key(ARGV[7], ARGV[8], tonumber(ARGV[9]))
  store(KEYS[1], ARGV[6], last_seen(ARGV[6]), old_keys)
elseif current and is_same_write(current, ARGV[6]) then
  write_again(KEYS[1])
else
  return { now, 'aborted' }
end
return { now, 'applied', now, 0, dropped }
