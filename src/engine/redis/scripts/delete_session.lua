-- Ends the session KEYS[1]. ARGV[6]: if it is 'live', or if it has 'expired'. ARGV[7]: if it belongs
-- to this principal; empty: whosever it is. Returns the time, the outcome, its header, and the old keys whose aliases end with it.
local header, old_keys = read_prefix(KEYS[1])
if header:byte(1) == LEAVING then
  return { now, 'relocating' }
elseif not is_record(header) or is_live(header) ~= (ARGV[6] == 'live') then
  return { now, 'not_found' }
elseif ARGV[7] ~= '' and not (#header >= HEADER and has_principal(header, ARGV[7])) then
  return { now, 'not_found' }
end
redis.call('DEL', KEYS[1])
return { now, 'applied', header, old_keys }
