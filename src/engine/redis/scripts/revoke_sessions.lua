-- Ends the sessions in the index KEYS[1] except ARGV[11], if that is the name of a living one: if
-- it is gone it may have moved, and nothing is ended. Returns the time, the outcome, how many were
-- ended, and old keys whose aliases end with them.
local sessions = sessions_in(KEYS[1])
local is_there = ARGV[11] == ''
for _, session in ipairs(sessions) do
  is_there = is_there or session.name == ARGV[11]
end
if not is_there then
  return { now, 'not_found' }
end
local ended, dropped = 0, {}
for _, session in ipairs(sessions) do
  if session.name ~= ARGV[11] then
    redis.call('DEL', session.name)
    redis.call('ZREM', KEYS[1], session.member)
    ended = ended + 1
    dropped[ended] = session.old_keys
  end
end
return { now, 'applied', ended, table.concat(dropped) }
