-- The last step of a renewal to another server: what left KEYS[1] for the destination ARGV[6] is
-- there, and the old id becomes the alias ARGV[7], which ends at ARGV[8], or ends.
if leaves_for(redis.call('GET', KEYS[1]), ARGV[6]) then
  if ARGV[7] ~= '' then
    store_alias(KEYS[1], ARGV[7], tonumber(ARGV[8]))
  else
    redis.call('DEL', KEYS[1])
  end
end
return { now, 'applied' }
