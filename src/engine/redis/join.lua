-- Puts a session into the list KEYS[1] before it is stored on another server.
join(KEYS[1])
return { now }
