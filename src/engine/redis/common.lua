-- What every script begins with: the time, and when the session of a record ends (docs/FORMAT.md has the record).
-- ARGV[1]: where a test moves the time by hand, the time, or the name of the key that holds it; else nothing: then it is the
-- server's time, which all hosts share. ARGV[2], ARGV[3]: the store's absolute and idle timeout, for a session that has none of its
-- own. ARGV[4]: the time at which the client made up a write.

-- The head of a record, and so much of what is sealed behind it that no two writes have the same: its nonce.
local HEAD = 105
local SHORTEST = 56
local LAST_SEEN = 16

local by_hand = ARGV[1] ~= ''
local now
if by_hand then
  -- No further than a number can be told from "never".
  now = math.min(tonumber(ARGV[1]) or tonumber(redis.call('GET', ARGV[1])), 2 ^ 63 - 1024)
else
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- When the session ends if it was used at this time last, or else when it was as its record says; and when that was. It does
-- not outlive its entry in its principal's list ("armed").
local function deadline(head, used)
  local created, seen, _, absolute, idle, armed = struct.unpack('<i8i8i8i8i8i8', head, 9)
  if absolute == 0 then absolute = tonumber(ARGV[2]) end
  if idle == 0 then idle = tonumber(ARGV[3]) end
  return math.min(created + absolute, (used or seen) + idle, armed), seen
end

local function last_seen(head)
  return (struct.unpack('<i8', head, LAST_SEEN + 1))
end

-- What is too short for a record is for the client to find out.
local function lives(head)
  return head ~= '' and (#head < SHORTEST or now < (deadline(head)))
end

-- Lets Redis remove the key by itself when its time has come.
local function keep_until(key, at)
  if by_hand then return end
  if at <= now then
    redis.call('DEL', key)
  elseif at < 2 ^ 53 then
    redis.call('PEXPIREAT', key, at)
  else
    redis.call('PERSIST', key)
  end
end

local function slide_to(key, head, seen)
  redis.call('SETRANGE', key, LAST_SEEN, struct.pack('<i8', seen))
  keep_until(key, (deadline(head, seen)))
end

-- Whether the session is what the client has seen of it, but for its last use.
local function is_as_seen(head, seen)
  return head:sub(1, LAST_SEEN) .. head:sub(LAST_SEEN + 9) == seen
end

-- Whether the write was made up so long ago that it must not happen any more, or by a clock that is wrong.
local function is_late()
  return not by_hand and math.abs(now - tonumber(ARGV[4])) > 1000
end
