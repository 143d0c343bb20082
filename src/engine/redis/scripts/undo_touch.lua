-- Takes back the use of the session KEYS[1] at ARGV[6], unless it was used since: its last use was
-- ARGV[7].
local header = read_prefix(KEYS[1])
if is_record(header) and #header >= HEADER and last_seen(header) == tonumber(ARGV[6]) then
  touch(KEYS[1], header, tonumber(ARGV[7]))
end
return { now }
