-- The living sessions in the index KEYS[1]: the time, and for each its member, its header and the
-- length of its record.
local answer = { now }
for _, session in ipairs(sessions_in(KEYS[1])) do
  answer[#answer + 1] = session.member
  answer[#answer + 1] = session.header
  answer[#answer + 1] = redis.call('STRLEN', session.name) - old_keys_len(session.old_keys)
end
return answer
