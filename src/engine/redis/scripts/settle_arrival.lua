-- How a renewal to the key KEYS[1] stands. One that was not published in time is aborted. ARGV[6]:
-- the record of a renewal that is aborted by its own caller even if it was published, because no
-- one has its id yet; ARGV[7]: when what it leaves ends.
local current = redis.call('GET', KEYS[1])
local kind = current and current:byte(1)
local is_own = ARGV[6] ~= '' and current
  and (is_same_write(current, ARGV[6]) or (kind == ARRIVING and current:sub(ARRIVING_RECORD) == ARGV[6]))
if is_own then
  redis.call('SET', KEYS[1], string.char(REVOKED))
  expire_at(KEYS[1], tonumber(ARGV[7]) + CLOCK_SLACK_MS)
elseif kind == ARRIVING and now < struct.unpack('<i8', current, 2) then
  return { now, 'pending' }
elseif kind == ARRIVING then
  redis.call('SET', KEYS[1], string.char(REVOKED), 'KEEPTTL')
elseif kind ~= REVOKED then
  return { now, 'published' }
end
return { now, 'aborted' }
