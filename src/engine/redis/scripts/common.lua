-- The start of every script: the time, and when the session of a record ends (docs/FORMAT.md
-- describes records). ARGV[1]: with clock=manual the time, or the name of the key that holds it;
-- otherwise empty: the server's clock counts, which all hosts share. ARGV[2], ARGV[3]: the store's
-- absolute and idle timeout, for a session without its own. ARGV[4]: when the client composed the
-- write. ARGV[5]: when its caller stops waiting.

-- The longest header and the nonce behind it: no two writes share them.
local PREFIX = 411
local HEADER = 64
local CREATED = 8
local LAST_SEEN = 16
local IDLE = 40
local AUTHENTICATED = 56
local PRINCIPAL = 32
local HAS_PRINCIPAL, HAS_COUNTED_FROM = 1, 8
-- By how much the times of a record may be ahead of the clock (header.rs).
local MAX_CLOCK_LEAD_MS = 10000
-- The clock by which a write was composed may be wrong by so much.
local MAX_CLOCK_ERROR_MS = 1000
-- For expiries by the clocks of two servers.
local CLOCK_SLACK_MS = 60000
-- The first byte of a value that is not a record: the old id of a renewed session; a session that a
-- renewal moves to another server, where it leaves and where it arrives; a session that was revoked
-- before it was stored.
local ALIAS, LEAVING, ARRIVING, REVOKED = 97, 108, 110, 120
-- A session's aliases end with it, and are few: so its record is followed by their keys, the oldest
-- first, each with the time when it ends, and then by their number. A flag of the record tells that
-- they are there (old_keys.rs).
local OLD_KEYS = 128
local OLD_KEY = 40
local MAX_ALIASES = 64
-- If Redis removes a session, its aliases remain until they end. One that would never end does so
-- after this time.
local ENDLESS_ALIAS_MS = 86400000

local manual_clock = ARGV[1] ~= ''
local now
if manual_clock then
  -- Smaller than "never".
  now = math.min(tonumber(ARGV[1]) or tonumber(redis.call('GET', ARGV[1])), 2 ^ 63 - 1024)
else
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A value of another kind than these is a record, possibly a damaged one: the client finds out.
local function is_record(value)
  local kind = value and value:byte(1)
  return kind and kind ~= ALIAS and kind ~= LEAVING and kind ~= ARRIVING and kind ~= REVOKED
end

-- The record in a value, and the old keys behind it.
local function split_old_keys(value)
  local flags = value:byte(2) or 0
  local len = (value:byte(-1) or 0) * OLD_KEY
  if flags < OLD_KEYS or not is_record(value) or #value < HEADER + len + 1 then return value, '' end
  return value:sub(1, 1) .. string.char(flags - OLD_KEYS) .. value:sub(3, -len - 2), value:sub(-len - 1, -2)
end

local function with_old_keys(record, old_keys)
  if old_keys == '' then return record end
  local flags = string.char(record:byte(2) + OLD_KEYS)
  return record:sub(1, 1) .. flags .. record:sub(3) .. old_keys .. string.char(#old_keys / OLD_KEY)
end

-- How much longer a value is than its record.
local function old_keys_len(old_keys)
  return old_keys == '' and 0 or #old_keys + 1
end

-- The old keys with room for so many more: without those that have ended, and without the oldest if
-- they are too many. And the keys of the latter.
local function trim_old_keys(old_keys, added)
  local kept, dropped, excess = {}, {}, #old_keys / OLD_KEY + added - MAX_ALIASES
  for at = 1, #old_keys, OLD_KEY do
    local entry = old_keys:sub(at, at + OLD_KEY - 1)
    if #dropped < excess then
      dropped[#dropped + 1] = entry
    elseif struct.unpack('<i8', entry, 33) > now then
      kept[#kept + 1] = entry
    end
  end
  return table.concat(kept), table.concat(dropped)
end

-- When an alias ends that could end at this time.
local function alias_end(at)
  return at < 2 ^ 62 and at or now + ENDLESS_ALIAS_MS
end

-- What follows the record of a session that is renewed: its old keys, with the one that it leaves
-- unless its alias ends at once; without it they lead nowhere. And the old keys that end.
local function push_old_key(old_keys, key, at)
  if not at then return '', old_keys end
  local kept, dropped = trim_old_keys(old_keys, 1)
  return kept .. key .. struct.pack('<i8', alias_end(at)), dropped
end

local function has_flag(record, flag)
  return math.floor(record:byte(2) / flag) % 2 == 1
end

-- Where the absolute timeout begins if that is before the creation and the last login: where the
-- record has it or would have it, in bytes from its start.
local function counted_from_at(record)
  return HEADER + (has_flag(record, HAS_PRINCIPAL) and PRINCIPAL or 0)
end

-- When the absolute timeout begins.
local function timeout_start(record)
  local created, authenticated = struct.unpack('<i8', record, CREATED + 1), struct.unpack('<i8', record, AUTHENTICATED + 1)
  local start, at = math.max(created, authenticated), counted_from_at(record)
  if has_flag(record, HAS_COUNTED_FROM) and #record >= at + 8 then
    start = math.min(start, (struct.unpack('<i8', record, at + 1)))
  end
  return start
end

-- When the session ends if it was last used at this time (by default: when its header says); and
-- when the header says. A session does not outlive its entry in its principal's index, whose
-- deadline the header has too.
local function deadline(header, used)
  local _, seen, _, absolute, idle, indexed = struct.unpack('<i8i8i8i8i8i8', header, CREATED + 1)
  if absolute == 0 then absolute = tonumber(ARGV[2]) end
  if idle == 0 then idle = tonumber(ARGV[3]) end
  return math.min(timeout_start(header) + absolute, (used or seen) + idle, indexed), seen
end

local function last_seen(header)
  return (struct.unpack('<i8', header, LAST_SEEN + 1))
end

local function with_last_seen(record, seen)
  return record:sub(1, LAST_SEEN) .. struct.pack('<i8', seen) .. record:sub(LAST_SEEN + 9)
end

-- What a record stores as its last use, and when the session ends. If it ends by the store's idle
-- timeout, the stored value is that timeout, negated: the key's expiry gives the last use, and a
-- get slides it without a script (fast_read.rs has the same rule). Otherwise it is the time, which
-- stays true whatever a get tries with the expiry. It is the time in the last millisecond too, for
-- which Redis no longer sets an expiry.
local function stored_last_use(header, used)
  local ends, idle = deadline(header, used), tonumber(ARGV[3])
  local by_expiry = struct.unpack('<i8', header, IDLE + 1) == 0 and ends == used + idle and ends > now + 1 and ends < 2 ^ 53
  return by_expiry and not manual_clock and -idle or used, ends
end

-- The last use of a session whose record stores its idle timeout, negated.
local function last_use_by_expiry(expiry, stored)
  return expiry + 1 + stored
end

-- The record with the time of the last use in it. (A missing expiry was removed by another program:
-- then that is long ago.)
local function with_time(key, record)
  if not is_record(record) or #record < HEADER or last_seen(record) >= 0 then return record end
  local seen = last_use_by_expiry(redis.call('PEXPIRETIME', key), last_seen(record))
  -- Slid by a longer timeout than the session has.
  if seen > now + MAX_CLOCK_ERROR_MS then seen = now end
  return with_last_seen(record, seen)
end


-- A record that is too short counts as living: the client finds out.
local function is_live(header)
  return is_record(header) and (#header < HEADER or now < (deadline(header)))
end

-- Has Redis remove the key when its time has come. (It does so when the expiry is over, and at once
-- if that is now.) Returns the server's refusal, if it refuses.
local function expire_at(key, at)
  if manual_clock then return end
  local answer
  if at <= now then
    answer = redis.pcall('DEL', key)
  elseif at < 2 ^ 53 then
    answer = redis.pcall('PEXPIREAT', key, math.max(at - 1, now + 1))
  else
    answer = redis.pcall('PERSIST', key)
  end
  if type(answer) == 'table' and answer.err then return answer end
end

-- Stores a record whose session was last used at this time, and its old keys, if it has some.
local function store(key, record, used, old_keys)
  local last_use, ends = stored_last_use(record, used)
  redis.call('SET', key, with_old_keys(with_last_seen(record, last_use), old_keys or ''))
  expire_at(key, ends)
end

-- Whether the session was created or used while the clock was ahead of what it says now. It would
-- outlive its timeouts by the error.
local function is_ahead(record)
  return math.max(timeout_start(record), last_seen(record)) > now + MAX_CLOCK_LEAD_MS
end

-- The record of a session that lives no longer than its timeouts from now on. The creation time
-- stays, because the payload is sealed with it.
local function pulled_back(record)
  if timeout_start(record) > now then
    local at, has = counted_from_at(record), has_flag(record, HAS_COUNTED_FROM)
    local flags = string.char(record:byte(2) + (has and 0 or HAS_COUNTED_FROM))
    record = record:sub(1, 1) .. flags .. record:sub(3, at) .. struct.pack('<i8', now) .. record:sub(at + (has and 9 or 1))
  end
  return with_last_seen(record, math.min(last_seen(record), now))
end

-- The record under a key, or another value, and the old keys of its session. A record that is ahead
-- of the clock is corrected, if the server permits it.
local function read_value(key)
  local value = redis.call('GET', key)
  if not value then return false, '' end
  local record, old_keys = split_old_keys(value)
  record = with_time(key, record)
  if is_record(record) and #record >= HEADER and is_ahead(record) then
    record = pulled_back(record)
    pcall(store, key, record, last_seen(record), old_keys)
  end
  return record, old_keys
end

-- The same with the start of the record.
local function read_prefix(key)
  local start = with_time(key, redis.call('GETRANGE', key, 0, PREFIX - 1))
  if is_record(start) and #start >= HEADER and (start:byte(2) >= OLD_KEYS or is_ahead(start)) then
    local record, old_keys = read_value(key)
    return record:sub(1, PREFIX), old_keys
  end
  return start, ''
end

-- Records a use of the session at this time, or returns the server's refusal. A full server refuses
-- SETRANGE, which a session that ends by the store's idle timeout does not need.
local function touch(key, header, used)
  local last_use, ends = stored_last_use(header, used)
  local bytes = struct.pack('<i8', last_use)
  if redis.call('GETRANGE', key, LAST_SEEN, LAST_SEEN + 7) ~= bytes then
    local answer = redis.pcall('SETRANGE', key, LAST_SEEN, bytes)
    if type(answer) == 'table' then return answer end
  end
  return expire_at(key, ends)
end

-- Whether the record is what the client has seen, except for its last use. Empty: it has seen none.
local function matches_prefix(record, seen)
  return seen ~= '' and record:sub(1, LAST_SEEN) .. record:sub(LAST_SEEN + 9, #seen + 8) == seen
end

-- Stores an alias, which ends at this time.
local function store_alias(key, alias, at)
  redis.call('SET', key, string.char(ALIAS) .. alias)
  expire_at(key, alias_end(at))
end

-- Whether a value has the record of this write.
local function is_same_write(value, b)
  local a = split_old_keys(value)
  return #a == #b and a:sub(1, LAST_SEEN) == b:sub(1, LAST_SEEN) and a:sub(LAST_SEEN + 9) == b:sub(LAST_SEEN + 9)
end

-- For a write that was sent again and finds itself done. WAIT covers what its own connection has
-- written, and nothing else since Valkey 9.
local function write_again(key)
  redis.pcall('SETRANGE', key, 0, redis.call('GETRANGE', key, 0, 0))
end

-- Whether the write was composed too long ago or by a wrong clock, or its caller has stopped
-- waiting: it must not happen.
local function is_late()
  return not manual_clock and (math.abs(now - tonumber(ARGV[4])) > MAX_CLOCK_ERROR_MS or now > tonumber(ARGV[5]))
end

local function has_principal(header, principal)
  return has_flag(header, HAS_PRINCIPAL) and header:sub(HEADER + 1, HEADER + PRINCIPAL) == principal
end

-- Whether the session was created up to this time. One that was created by a clock that was ahead
-- was too.
local function is_created_before(record, time)
  local created = struct.unpack('<i8', record, CREATED + 1)
  return created <= time or created > now + MAX_CLOCK_LEAD_MS
end

-- Whether all sessions are being ended, this one among them (mark_revocation.lua).
local function is_being_revoked(record, revocations)
  local latest = redis.call('ZRANGE', revocations, -1, -1, 'WITHSCORES')
  return latest[2] and is_created_before(record, tonumber(latest[2]))
end

-- The value of a session that leaves: its destination, which is the key where it arrives (32) and a
-- token of the attempt (16); the alias for afterwards or nothing; and its record.
local function leaving_value(destination, alias, record)
  return string.char(LEAVING) .. destination .. string.char(#alias) .. alias .. record
end

local function leaves_for(value, destination)
  return value and value:byte(1) == LEAVING and value:sub(2, 49) == destination
end

-- The record of a session that leaves, and its old keys.
local function leaving_record(value)
  return split_old_keys(value:sub(51 + value:byte(50)))
end

-- The value of a session that arrives: until when it may be published, and its record.
local ARRIVING_RECORD = 10
