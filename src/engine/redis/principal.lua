-- A principal's list: a sorted set of its sessions, by when each of them ends at the latest. Who comes in is there before it
-- is stored, and who has gone may still be there for a while.
-- ARGV[5]: what the names of sessions begin with. ARGV[6]: who comes in, that is its key and a number; ARGV[7]: when it ends
-- at the latest. ARGV[8]: the principal. ARGV[9]: how many sessions it may have, or nothing.
local SLACK = 60000
local KEY = 43

local function name_of(member)
  return ARGV[5] .. member:sub(1, KEY) .. '}'
end

-- Puts in who comes. What has ended so long ago that no clock can be so wrong is taken out, and the list ends with its last
-- session.
local function join(list)
  local ends = tonumber(ARGV[7])
  local list_ends = redis.call('PEXPIRETIME', list)
  redis.call('ZADD', list, 'GT', ends, ARGV[6])
  if not by_hand then
    redis.call('ZREMRANGEBYSCORE', list, '-inf', '(' .. string.format('%.0f', now - SLACK))
    -- -1: it never ends; -2: there was none.
    if list_ends ~= -1 and list_ends < ends + SLACK then keep_until(list, ends + SLACK) end
  end
end

-- The living sessions in a list. What has gone or is somebody else's is taken out.
local function sessions_of(list)
  local found = {}
  for _, member in ipairs(redis.call('ZRANGE', list, 0, -1)) do
    local name = name_of(member)
    local head = head_of(name)
    local is_in = head:sub(3, 8) == member:sub(KEY + 1) and head:byte(2) % 2 == 1 and head:sub(57, 88) == ARGV[8]
    if not is_in then
      redis.call('ZREM', list, member)
    elseif lives(head) then
      found[#found + 1] = { name = name, member = member, head = head, created = struct.unpack('<i8', head, 9) }
    end
  end
  return found
end

local function is_older(a, b)
  local a_seen, b_seen = last_seen(a.head), last_seen(b.head)
  if a_seen ~= b_seen then return a_seen < b_seen end
  if a.created ~= b.created then return a.created < b.created end
  return a.member:sub(KEY + 1) < b.member:sub(KEY + 1)
end

-- Ends the least recently used sessions of a principal that has too many, but not the one of this name, and says how many.
local function end_surplus(list, spared)
  if ARGV[9] == '' then return 0 end
  local others = {}
  for _, session in ipairs(sessions_of(list)) do
    if session.name ~= spared then others[#others + 1] = session end
  end
  local surplus = math.max(0, #others + 1 - tonumber(ARGV[9]))
  table.sort(others, is_older)
  for i = 1, surplus do
    redis.call('DEL', others[i].name)
    redis.call('ZREM', list, others[i].member)
  end
  return surplus
end
