-- Inserts a session into the index KEYS[1] before it is stored on another server, unless the index
-- is locked (lock_index.lua).
if redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. string.format('%.0f', -now)) > 0 then
  return { now, 'locked' }
end
insert(KEYS[1])
return { now, 'applied' }
