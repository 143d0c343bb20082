-- Reads the session KEYS[1]. ARGV[6]: 'peek' records no use, 'get' does if the server permits it,
-- 'touch' does or fails. ARGV[7]: 'whole', or 'prefix' for the part that says when the session
-- ends. ARGV[8], ARGV[9]: the expiry that fast_read.rs has set and the one before it, or nothing.
-- Returns the time; the record, or else what an old id's key holds; the length of the record; and 1
-- if the use was not recorded.
if ARGV[8] ~= '' and redis.call('PEXPIRETIME', KEYS[1]) == tonumber(ARGV[8]) then
  local before, header = tonumber(ARGV[9]), redis.call('GETRANGE', KEYS[1], 0, HEADER - 1)
  -- In its last millisecond Redis would remove it at once: then its record stores the last use.
  local is_by_expiry = is_record(header) and #header == HEADER and last_seen(header) < 0
  local used = before == now and is_by_expiry and last_use_by_expiry(before, last_seen(header))
  if not used or type(redis.pcall('SETRANGE', KEYS[1], LAST_SEEN, struct.pack('<i8', used))) == 'table' then
    redis.call('PEXPIREAT', KEYS[1], ARGV[9])
  end
end
local is_whole = ARGV[7] == 'whole'
local record, old_keys
if is_whole then record, old_keys = read_value(KEYS[1]) else record, old_keys = read_prefix(KEYS[1]) end
record = record or ''
local kind = record:byte(1)
if kind == ALIAS or kind == LEAVING then
  return { now, false, redis.call('GET', KEYS[1]) }
elseif not is_live(record) then
  return { now }
end
local refused
if ARGV[6] ~= 'peek' and #record >= HEADER then
  refused = touch(KEYS[1], record, math.max(now, last_seen(record)))
  -- A server without memory, replicas or a disk to save to still reads; a replica does not know the
  -- newest use.
  local is_tolerated = refused and ARGV[6] == 'get'
    and (refused.err:find('^OOM') or refused.err:find('^NOREPLICAS') or refused.err:find('^MISCONF'))
  if refused and not is_tolerated then return refused end
end
return { now, record, false, not is_whole and redis.call('STRLEN', KEYS[1]) - old_keys_len(old_keys), refused and 1 }
