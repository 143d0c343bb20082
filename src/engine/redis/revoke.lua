-- Ends the sessions in the list KEYS[1], but not ARGV[10], if that is the name of a living one: if it is gone, it may have
-- moved, and nothing is done. Returns the time, what came of it, and how many were ended.
local sessions = sessions_of(KEYS[1])
local is_there = ARGV[10] == ''
for _, session in ipairs(sessions) do
  is_there = is_there or session.name == ARGV[10]
end
if not is_there then
  return { now, 'gone' }
end
local ended = 0
for _, session in ipairs(sessions) do
  if session.name ~= ARGV[10] then
    redis.call('DEL', session.name)
    redis.call('ZREM', KEYS[1], session.member)
    ended = ended + 1
  end
end
return { now, 'done', ended }
