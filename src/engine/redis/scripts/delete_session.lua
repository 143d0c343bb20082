-- Ends the session KEYS[1]. ARGV[6]: if it is 'live', or if it has 'expired'. Returns the time, the
-- outcome and its header.
local header = read_prefix(KEYS[1])
if header:byte(1) == LEAVING then
  return { now, 'relocating' }
elseif not is_record(header) or is_live(header) ~= (ARGV[6] == 'live') then
  return { now, 'not_found' }
end
redis.call('DEL', KEYS[1])
return { now, 'applied', header }
