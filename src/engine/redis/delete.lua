-- Ends the session KEYS[1]. ARGV[5]: if it is 'living', or if it has 'expired'.
-- Returns the time, what came of it, and its head.
local head = head_of(KEYS[1])
if head == '' or lives(head) ~= (ARGV[5] == 'living') then
  return { now, 'gone' }
end
redis.call('DEL', KEYS[1])
return { now, 'done', head }
