-- Puts a session into the list KEYS[1] before it is stored on another server, unless the list is closed, which the key ARGV[10]
-- says. Returns the time, and what came of it.
if redis.call('EXISTS', ARGV[10]) == 1 then
  return { now, 'closed' }
end
join(KEYS[1])
return { now, 'done' }
