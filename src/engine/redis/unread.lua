-- Takes back that the session KEYS[1] was used at ARGV[5], unless it was used since: its last use was ARGV[6].
local head = head_of(KEYS[1])
if #head >= SHORTEST and last_seen(head) == tonumber(ARGV[5]) then
  slide_to(KEYS[1], head, tonumber(ARGV[6]))
end
return { now }
