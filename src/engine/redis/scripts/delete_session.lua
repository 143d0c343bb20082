-- Ends the session KEYS[1]. ARGV[6]: if it is 'live', or if it has 'expired'. Returns the time, the
-- outcome, its header, and the old keys whose aliases end with it.
local header, old_keys = read_prefix(KEYS[1])
if header:byte(1) == LEAVING then
  return { now, 'relocating' }
elseif not is_record(header) or is_live(header) ~= (ARGV[6] == 'live') then
  return { now, 'not_found' }
end
redis.call('DEL', KEYS[1])
return { now, 'applied', header, old_keys }
