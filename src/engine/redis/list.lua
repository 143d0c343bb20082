-- The living sessions in the list KEYS[1]: the time, and of each its member, its head and the length of its record.
local answer = { now }
for _, session in ipairs(sessions_of(KEYS[1])) do
  answer[#answer + 1] = session.member
  answer[#answer + 1] = session.head
  answer[#answer + 1] = redis.call('STRLEN', session.name)
end
return answer
