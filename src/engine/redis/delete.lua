-- Ends the session KEYS[1]. ARGV[5]: only if it is 'living' (and not an old id, which is the alias KEYS[2]), only if it has
-- 'expired', or 'revoked': only if it is of the principal ARGV[6]; if it is not there, it must not appear any more: its
-- alias is taken for so long that whoever is about to store it comes too late.
-- Returns the time, what came of it, its head, and whether it lived.
local head = redis.call('GETRANGE', KEYS[1], 0, HEAD - 1)
if head == '' then
  if ARGV[5] == 'revoked' then redis.call('SET', KEYS[2], '', 'NX', 'PX', 10000) end
  return { now, 'gone' }
end
local alive = lives(head)
if ARGV[5] == 'revoked' then
  if head:byte(2) % 2 == 0 or head:sub(57, 88) ~= ARGV[6] then return { now, 'other' } end
elseif alive ~= (ARGV[5] == 'living') then
  return { now, 'gone' }
elseif alive and redis.call('EXISTS', KEYS[2]) == 1 then
  return { now, 'gone' }
end
redis.call('DEL', KEYS[1])
return { now, 'done', head, alive and 1 or 0 }
