-- The first step of a renewal to another server: stores the record ARGV[6] under the new key
-- KEYS[1], where it is not readable before it is published, which must happen before the caller
-- stops waiting. ARGV[7]: when the session ends under either key. ARGV[8]: not empty if it may be
-- stored although an earlier attempt was revoked or aborted.
local current = redis.call('GET', KEYS[1])
local arriving = string.char(ARRIVING) .. struct.pack('<i8', tonumber(ARGV[5])) .. ARGV[6]
if current == arriving then
  write_again(KEYS[1])
  return { now, 'applied' }
elseif current and current:byte(1) ~= REVOKED then
  return { now, 'taken' }
elseif current and ARGV[8] == '' then
  return { now, 'revoked' }
elseif is_late() then
  return { now, 'clock_skew' }
end
redis.call('SET', KEYS[1], arriving)
-- It outlives what leaves for it: a missing one was published, and has ended since.
expire_at(KEYS[1], tonumber(ARGV[7]) + CLOCK_SLACK_MS)
return { now, 'applied' }
