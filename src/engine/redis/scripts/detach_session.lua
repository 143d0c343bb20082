-- The second step of a renewal to another server: the session KEYS[1], if it still is what the
-- client has seen, leaves for the destination ARGV[7]. It is read as it was, and not written, until
-- that has been published. ARGV[6]: the prefix of what was seen. ARGV[8]: the alias that the old id
-- becomes, or nothing. Returns the time, the outcome, and the stored record on a mismatch, otherwise
-- the session's old keys.
local value, old_keys = read_value(KEYS[1])
if leaves_for(value, ARGV[7]) then
  write_again(KEYS[1])
  local _, its_old_keys = leaving_record(value)
  return { now, 'applied', now, 0, its_old_keys }
elseif value and value:byte(1) == LEAVING then
  return { now, 'relocating' }
elseif not value or not is_live(value) then
  return { now, 'not_found' }
elseif not matches_prefix(value, ARGV[6]) then
  return { now, 'mismatch', value }
elseif is_late() then
  return { now, 'clock_skew' }
end
redis.call('SET', KEYS[1], leaving_value(ARGV[7], ARGV[8], with_old_keys(value, old_keys)))
expire_at(KEYS[1], (deadline(value)))
return { now, 'applied', now, 0, old_keys }
