-- Stores a batch, or nothing of it.
--
-- KEYS[4…] the newest values of each topic, in the order of the topics below.
-- ARGV[2] the epoch the caller follows, ARGV[3] the beginning of the keys with the ids, ARGV[4] the
-- dedupe window in milliseconds, ARGV[5] the most ids, ARGV[6] the most topics, ARGV[7] the most keys
-- of a topic, ARGV[8] a lease's key or '', ARGV[9] its token, ARGV[10] the block, ARGV[11] the number
-- of events, then the hash of each one's id; the number of topics, and for each: its name, 1 if it is the hub's own, events, bytes,
-- the last one's index, the number of newest values, for each its key, index and record, and the
-- number of removals, for each its key.

-- Another server, another history, or one that the caller has not heard of: `hello` comes first.
if stored[1] ~= identity or epoch ~= ARGV[2] then return { 'moved' } end

local next_argument = 11
local function take()
  next_argument = next_argument + 1
  return ARGV[next_argument]
end

if ARGV[8] ~= '' and redis.call('HGET', ARGV[8], 'token') ~= ARGV[9] then
  return { 'fenced' }
end

local count = number(ARGV[11])
local ids = {}
for index = 1, count do ids[index] = take() end

-- Calls with many arguments in pieces, for Lua's stack is finite.
local PIECE = 2000
local function in_pieces(list, call)
  for from = 1, #list, PIECE do
    call(from, unpack(list, from, math.min(from + PIECE - 1, #list)))
  end
end

local window, most_ids = number(ARGV[4]), number(ARGV[5])
local stored_generation = redis.call('HMGET', meta, 'generation', 'generation_from')
local generation, generation_from = number(stored_generation[1]), number(stored_generation[2])
local originals = {}
for which = generation - 1, generation do
  local key = ARGV[3] .. text(which)
  in_pieces(redis.call('EXISTS', key) == 1 and ids or {}, function(from, ...)
    local found = redis.call('HMGET', key, ...)
    for index = 1, #found do
      if found[index] then
        local offset, at = found[index]:match('(%d+) (%d+)')
        if number(at) + window >= received then
          originals[#originals + 1] = text(from + index - 1)
          originals[#originals + 1] = offset
        end
      end
    end
  end)
end
if #originals > 0 then
  -- A write of this caller, for it to wait until the replicas have that and all before.
  redis.call('HSET', meta, 'received', text(received))
  return { 'duplicates', originals }
end

local changes, names, fresh = {}, {}, 0
for index = 1, number(take()) do
  local change = { name = take(), ours = take() == '1', events = number(take()),
    bytes = number(take()), last = number(take()), newest = {}, removed = {} }
  for value = 1, number(take()) do
    change.newest[value] = { take(), number(take()), take() }
  end
  for value = 1, number(take()) do change.removed[value] = take() end
  changes[index] = change
  names[index] = change.name
end
local known = {}
in_pieces(names, function(from, ...)
  local found = redis.call('HMGET', topics, ...)
  for index = 1, #found do known[from + index - 1] = found[index] end
end)
for index, change in ipairs(changes) do
  if not known[index] and not change.ours then fresh = fresh + 1 end
  local kind = redis.call('TYPE', KEYS[3 + index]).ok
  if kind ~= 'none' and kind ~= 'hash' then
    return redis.error_reply('FOREIGN ' .. KEYS[3 + index] .. ' is a ' .. kind .. ', not the hash of a hub')
  end
end
if fresh > 0 and redis.call('HLEN', topics) + fresh > number(ARGV[6]) then
  return { 'topics' }
end

-- From here on everything is written. The first write fails alone if Redis takes none.
local before = head
redis.call('XADD', log, text(before + count) .. '-0', 'e', epoch, 'p', text(before), 'r',
  text(received), 'b', ARGV[10])
head = before + count
bytes = bytes + #ARGV[10]
local ids_key = ARGV[3] .. text(generation)
local is_old = received - generation_from >= window
if is_old or redis.call('HLEN', ids_key) + count > most_ids / 2 then
  redis.call('UNLINK', ARGV[3] .. text(generation - 1))
  generation, generation_from = generation + 1, received
  ids_key = ARGV[3] .. text(generation)
end
local fields, at = {}, ' ' .. text(received)
for index = 1, count do
  fields[2 * index - 1] = ids[index]
  fields[2 * index] = text(before + index) .. at
end
in_pieces(fields, function(_, ...) redis.call('HSET', ids_key, ...) end)
redis.call('PEXPIRE', ids_key, text(window * 3 + 1000))
redis.call('HSET', meta, 'head', text(head), 'received', text(received), 'bytes', text(bytes),
  'generation', text(generation), 'generation_from', text(generation_from))

local full = {}
for index, change in ipairs(changes) do
  local events, size, lost = 0, 0, 0
  if known[index] then
    local a, b, _, _, c = known[index]:match('(%d+) (%d+) (%d+) (%d+) (%d+)')
    events, size, lost = number(a), number(b), number(c)
  end
  redis.call('HSET', topics, change.name, table.concat({ text(events + change.events),
    text(size + change.bytes), text(before + change.last), text(received), text(lost) }, ' '))
  local newest = {}
  for _, value in ipairs(change.newest) do
    newest[#newest + 1] = value[1]
    newest[#newest + 1] = text(before + value[2]) .. ' ' .. text(received) .. ' ' .. value[3]
  end
  local key = KEYS[3 + index]
  in_pieces(newest, function(_, ...) redis.call('HSET', key, ...) end)
  in_pieces(change.removed, function(_, ...) redis.call('HDEL', key, ...) end)
  if #newest > 0 and redis.call('HLEN', key) > number(ARGV[7]) then full[#full + 1] = change.name end
end
return { 'ok', text(before + 1), full }
