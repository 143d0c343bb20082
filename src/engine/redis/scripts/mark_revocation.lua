-- Notes in KEYS[1] that all sessions are being ended that were created at ARGV[1] or before, under the
-- name ARGV[2], for up to ARGV[3] ms. None of them is renewed meanwhile.
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return { 'applied' }
