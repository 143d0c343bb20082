-- Writes the session KEYS[1] as it is, so that WAIT tells whether replicas follow.
write_again(KEYS[1])
return { now }
