-- Ends the session KEYS[1] of the principal ARGV[5], and what its old id reads at ARGV[7] while it is on its way. If it is not
-- there it must not appear any more: its alias ARGV[6] is taken for so long that who is about to store it comes too late.
-- ARGV[8]: only if it was used at this time last, or nothing. Returns the time, what came of it, and whether it lived.
local head = head_of(KEYS[1])
if head == '' then
  redis.call('SET', ARGV[6], '', 'NX', 'PX', 10000)
  redis.call('DEL', ARGV[7])
  return { now, 'gone' }
elseif head:byte(2) % 2 == 0 or head:sub(57, 88) ~= ARGV[5] or (ARGV[8] ~= '' and tonumber(ARGV[8]) ~= last_seen(head)) then
  return { now, 'other' }
end
redis.call('DEL', KEYS[1])
return { now, 'done', lives(head) and 1 or 0 }
