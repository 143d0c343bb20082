-- Reads the session KEYS[1], or its alias ARGV[7], which is on the same server. (As a second key it would keep the session
-- from being read while a Cluster moves its slot.) ARGV[5]: 'use' notes a use of it, 'peek' does not. ARGV[6]: 'whole', or
-- 'head' for as much as says when it ends. ARGV[8], ARGV[9]: the expiry that slide.rs has tried, and the one before, or nothing.
-- Returns the time, the record, if there is none the alias, and the record's length.
if ARGV[8] ~= '' and redis.call('PEXPIRETIME', KEYS[1]) == tonumber(ARGV[8]) then
  local before, head = tonumber(ARGV[9]), redis.call('GETRANGE', KEYS[1], 0, SHORTEST - 1)
  -- In its last millisecond Redis would remove it at once: then its record tells the last use.
  local told = before == now and #head == SHORTEST and last_seen(head) < 0 and use_by(before, last_seen(head))
  if not told or type(redis.pcall('SETRANGE', KEYS[1], LAST_SEEN, struct.pack('<i8', told))) == 'table' then
    redis.call('PEXPIREAT', KEYS[1], ARGV[9])
  end
end
local is_whole = ARGV[6] == 'whole'
local record = is_whole and record_of(KEYS[1]) or head_of(KEYS[1])
if record == '' then
  return { now, false, redis.call('GET', ARGV[7]) }
end
if #record >= SHORTEST then
  local ends, seen = deadline(record)
  if now >= ends then
    return { now }
  elseif ARGV[5] == 'use' then
    -- A server without memory still reads: the use that it cannot note lets the session die earlier, not later.
    local refused = slide_to(KEYS[1], record, math.max(now, seen))
    if refused and not refused.err:find('^OOM') then
      return refused
    end
  end
end
return { now, record, false, not is_whole and redis.call('STRLEN', KEYS[1]) }
