-- What every script begins with: the time, and when the session of a record ends (docs/FORMAT.md has the record).
-- ARGV[1]: where a test moves the time by hand, the time, or the name of the key that holds it; else nothing: then it is the
-- server's time, which all hosts share. ARGV[2], ARGV[3]: the store's absolute and idle timeout, for a session that has none of its
-- own. ARGV[4]: the time at which the client made up a write.

-- The head of a record, and so much of what is sealed behind it that no two writes have the same: its nonce.
local HEAD = 105
local SHORTEST = 56
local LAST_SEEN = 16
local IDLE = 40
-- By so much may the clock of who makes up a write be wrong.
local WRONG_MS = 1000

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

local function with_last_seen(record, seen)
  return record:sub(1, LAST_SEEN) .. struct.pack('<i8', seen) .. record:sub(LAST_SEEN + 9)
end

-- What is stored in the place of the last use, and when the session ends. Where that is at the store's idle timeout, it is this
-- timeout, below 0: the key's expiry tells the rest, and a get slides it without a script (slide.rs, which knows this rule).
-- Where it ends otherwise the time is stored, and is true whatever is tried with the expiry; so it is in the last millisecond, for
-- which Redis sets no expiry any more.
local function stored_use(head, used)
  local ends, idle = deadline(head, used), tonumber(ARGV[3])
  local follows = struct.unpack('<i8', head, IDLE + 1) == 0 and ends == used + idle and ends > now + 1 and ends < 2 ^ 53
  return follows and not by_hand and -idle or used, ends
end

-- The last use of a session whose record has its idle timeout, below 0, in the place of it; by its key's expiry.
local function use_by(expiry, stored)
  return expiry + 1 + stored
end

-- A record that was read, with the time of the last use in its place. (Without an expiry, which somebody must have taken away,
-- that is long ago.)
local function with_time(key, record)
  if #record < SHORTEST or last_seen(record) >= 0 then return record end
  local seen = use_by(redis.call('PEXPIRETIME', key), last_seen(record))
  -- Slid by a longer timeout than it has.
  if seen > now + WRONG_MS then seen = now end
  return with_last_seen(record, seen)
end

local function head_of(key)
  return with_time(key, redis.call('GETRANGE', key, 0, HEAD - 1))
end

local function record_of(key)
  local record = redis.call('GET', key)
  return record and with_time(key, record)
end

-- What is too short for a record is for the client to find out.
local function lives(head)
  return head ~= '' and (#head < SHORTEST or now < (deadline(head)))
end

-- Lets Redis remove the key by itself when its time has come. (It does when the expiry is over; and at once if that is now.)
local function keep_until(key, at)
  if by_hand then return end
  if at <= now then
    redis.call('DEL', key)
  elseif at < 2 ^ 53 then
    redis.call('PEXPIREAT', key, math.max(at - 1, now + 1))
  else
    redis.call('PERSIST', key)
  end
end

-- Stores a record whose session was used at this time last.
local function store(key, record, used)
  local use, ends = stored_use(record, used)
  redis.call('SET', key, with_last_seen(record, use))
  keep_until(key, ends)
end

-- Notes that the session was used at this time last; or returns why the server refuses that.
local function slide_to(key, head, used)
  local use, ends = stored_use(head, used)
  local noted = redis.pcall('SETRANGE', key, LAST_SEEN, struct.pack('<i8', use))
  if type(noted) == 'table' then return noted end
  keep_until(key, ends)
end

-- Whether the session is what the client has seen of it, but for its last use.
local function is_as_seen(head, seen)
  return head:sub(1, LAST_SEEN) .. head:sub(LAST_SEEN + 9) == seen
end

-- Whether the write was made up so long ago that it must not happen any more, or by a clock that is wrong.
local function is_late()
  return not by_hand and math.abs(now - tonumber(ARGV[4])) > WRONG_MS
end
