-- A principal's index: a sorted set of its sessions, scored by when each of them ends at the
-- latest. A session is in it before it is stored, and may stay in it for a while after it has
-- ended. ARGV[6]: the start of the names of sessions. ARGV[7]: the member to insert, which is its
-- key and a number; ARGV[8]: when it ends at the latest. ARGV[9]: the principal. ARGV[10]: how many
-- sessions it may have, or nothing.
local SPELLED_KEY = 43

-- Members that ended so long ago that no clock can be so wrong are removed, and the index expires
-- with its last session.
local function insert(index)
  local ends = math.max(0, tonumber(ARGV[8]))
  local index_ends = redis.call('PEXPIRETIME', index)
  redis.call('ZADD', index, 'GT', ends, ARGV[7])
  if not manual_clock then
    redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. string.format('%.0f', now - CLOCK_SLACK_MS))
    -- -1: it never ends; -2: there was none.
    if index_ends ~= -1 and index_ends < ends + CLOCK_SLACK_MS then expire_at(index, ends + CLOCK_SLACK_MS) end
  end
end

-- The living sessions in an index. Members whose session has ended or belongs to another principal
-- are removed.
local function sessions_in(index)
  local found = {}
  for _, member in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    local name = ARGV[6] .. member:sub(1, SPELLED_KEY) .. '}'
    local header, old_keys = read_prefix(name)
    if not (is_record(header) and header:sub(3, 8) == member:sub(SPELLED_KEY + 1) and has_principal(header, ARGV[9])) then
      redis.call('ZREM', index, member)
    elseif is_live(header) then
      found[#found + 1] = {
        name = name, member = member, header = header, old_keys = old_keys, created = struct.unpack('<i8', header, CREATED + 1),
      }
    end
  end
  return found
end

local function is_less_recent(a, b)
  local a_seen, b_seen = last_seen(a.header), last_seen(b.header)
  if a_seen ~= b_seen then return a_seen < b_seen end
  if a.created ~= b.created then return a.created < b.created end
  return a.member:sub(SPELLED_KEY + 1) < b.member:sub(SPELLED_KEY + 1)
end

-- Ends the least recently used sessions of a principal that has too many, except the one of this
-- name, and returns how many, and the old keys whose aliases end with them.
local function evict_excess(index, excluded)
  if ARGV[10] == '' then return 0, '' end
  local others = {}
  for _, session in ipairs(sessions_in(index)) do
    if session.name ~= excluded then others[#others + 1] = session end
  end
  local dropped = {}
  local excess = math.max(0, #others + 1 - tonumber(ARGV[10]))
  table.sort(others, is_less_recent)
  for i = 1, excess do
    redis.call('DEL', others[i].name)
    redis.call('ZREM', index, others[i].member)
    dropped[i] = others[i].old_keys
  end
  return excess, table.concat(dropped)
end
