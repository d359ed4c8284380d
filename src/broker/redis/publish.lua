-- Stores a batch, or nothing of it.
--
-- KEYS[4…] the newest values of each topic, in the order of the topics below.
-- ARGV[2] the epoch the caller follows, ARGV[3] the beginning of the keys with the ids, ARGV[4] the
-- dedupe window in milliseconds, ARGV[5] the most ids, ARGV[6] the most topics beside the hub's own,
-- which are as many as `own_topics` says, ARGV[7] the most keys of a topic, ARGV[8] a lease's key or '',
-- ARGV[9] its token, ARGV[10] the call's name, ARGV[11] the block, ARGV[12] the number of events,
-- ARGV[13] who published them, then the hash of each one's id; the number of topics, and for each: its name, 1 if it is the hub's own,
-- events, bytes, the last one's index, the number of newest values, for each its key and record, and
-- the number of removals, for each its key.
--
-- Most of the time goes into Lua's texts: each is hashed byte by byte when it is made, and freed. So
-- what there is many of goes on as it came, from ARGV, and no number is formatted for each event.

-- Another server, another history, or one that the caller has not heard of: `hello` comes first.
if stored[1] ~= identity or epoch ~= ARGV[2] then return { 'moved' } end

if ARGV[8] ~= '' and redis.call('HGET', ARGV[8], 'token') ~= ARGV[9] then
  return { 'fenced' }
end

-- Calls with many arguments in pieces, for Lua's stack is finite. Even, so that pairs stay together.
local PIECE = 2000
local function in_pieces(list, from, to, call)
  for at = from, to, PIECE do
    call(at - from, unpack(list, at, math.min(at + PIECE - 1, to)))
  end
end

local window, most_ids, count = number(ARGV[4]), number(ARGV[5]), number(ARGV[12])
local first_id, last_id = 14, 13 + count

-- An id's value: an offset, when it was received, and a byte that is added to the offset.
local numbers_of = redis.call('HMGET', meta, 'generation', 'generation_from', 'own_topics', 'forgotten_topics')
local generation, generation_from = number(numbers_of[1]), number(numbers_of[2])
local originals = {}
for which = generation - 1, generation do
  local key = ARGV[3] .. text(which)
  local last = redis.call('EXISTS', key) == 1 and last_id or 0
  in_pieces(ARGV, first_id, last, function(before, ...)
    local found = redis.call('HMGET', key, ...)
    for index = 1, #found do
      if found[index] then
        local offset, at, beyond = found[index]:match('^(%d+) (%d+) (.)$')
        if number(at) + window >= received then
          originals[#originals + 1] = text(before + index)
          originals[#originals + 1] = text(number(offset) + beyond:byte())
        end
      end
    end
  end)
end
if #originals > 0 then
  -- A write of this caller, for it to wait until the replicas have that and all before.
  redis.call('HSET', meta, 'received', text(received))
  -- All of them, under this call's name: it ran before, and its answer was lost.
  if #originals == 2 * count then
    local last = number(originals[#originals])
    local id = text(last) .. '-0'
    local entry = redis.call('XRANGE', log, id, id)[1]
    local fields = entry and entry[2] or {}
    for at = 1, #fields, 2 do
      if fields[at] == 'c' and fields[at + 1] == ARGV[10] then
        return { 'ok', text(last - count + 1), {} }
      end
    end
  end
  return { 'duplicates', originals }
end

local next_argument = last_id
local function take()
  next_argument = next_argument + 1
  return ARGV[next_argument]
end
local changes, names = {}, {}
for index = 1, number(take()) do
  local change = { name = take(), ours = take() == '1', events = number(take()),
    bytes = number(take()), last = number(take()) }
  local newest = number(take())
  change.first_newest, change.last_newest = next_argument + 1, next_argument + 2 * newest
  next_argument = change.last_newest
  local removed = number(take())
  change.first_removed, change.last_removed = next_argument + 1, next_argument + removed
  next_argument = change.last_removed
  changes[index] = change
  names[index] = change.name
end
local known, fresh, fresh_own, revived = {}, {}, 0, 0
in_pieces(names, 1, #names, function(before, ...)
  local found = redis.call('HMGET', topics, ...)
  for index = 1, #found do known[before + index] = found[index] end
end)
for index, change in ipairs(changes) do
  -- A forgotten topic is as good as new, but for what it had lost.
  local is_forgotten = known[index] and known[index]:sub(-2) == ' f'
  if is_forgotten then revived = revived + 1 end
  if not known[index] or is_forgotten then
    if change.ours then fresh_own = fresh_own + 1 else fresh[#fresh + 1] = change.name end
  end
  change.keys = redis.pcall('HLEN', KEYS[3 + index])
  if type(change.keys) ~= 'number' then
    return redis.error_reply('FOREIGN ' .. KEYS[3 + index] .. ' is not the hash of a hub')
  end
end
local own_topics = tonumber(numbers_of[3] or '')
if not own_topics then
  -- A log of an earlier version, or a new one.
  own_topics = 0
  for _, name in ipairs(redis.call('HKEYS', topics)) do
    if name == 'hub' or name:sub(1, 4) == 'hub.' then own_topics = own_topics + 1 end
  end
end
if #fresh > 0 then
  local room = math.max(0, number(ARGV[6]) + own_topics + number(numbers_of[4]) - redis.call('HLEN', topics))
  local without_room = {}
  for index = room + 1, #fresh do without_room[index - room] = fresh[index] end
  if #without_room > 0 then return { 'topics', without_room } end
end

-- From here on everything is written. The first write fails alone if Redis takes none.
local before, at = head, text(received)
redis.call('XADD', log, text(before + count) .. '-0', 'e', epoch, 'p', text(before), 'r', at, 'b',
  ARGV[11], 'c', ARGV[10], 'u', ARGV[13])
head = before + count
bytes = bytes + #ARGV[11]
local ids_key = ARGV[3] .. text(generation)
local is_old = received - generation_from >= window or generation_from > received + MOST_AHEAD
if is_old or redis.call('HLEN', ids_key) + count > most_ids / 2 then
  redis.call('UNLINK', ARGV[3] .. text(generation - 1))
  generation, generation_from = generation + 1, received
  ids_key = ARGV[3] .. text(generation)
end
local ids, base = {}, nil
for index = 1, count do
  local beyond = (index - 1) % 256
  if beyond == 0 then base = text(before + index) .. ' ' .. at .. ' ' end
  ids[2 * index - 1] = ARGV[first_id - 1 + index]
  ids[2 * index] = base .. string.char(beyond)
end
in_pieces(ids, 1, #ids, function(_, ...) redis.call('HSET', ids_key, ...) end)
redis.call('PEXPIRE', ids_key, text(window * 3 + 1000))
redis.call('HSET', meta, 'head', text(head), 'received', at, 'bytes', text(bytes),
  'generation', text(generation), 'generation_from', text(generation_from), 'own_topics',
  text(own_topics + fresh_own), 'forgotten_topics', text(number(numbers_of[4]) - revived))

-- A newest value: the batch's first offset, when it was received, and the record under its index.
local full, numbers = {}, {}
local first = text(before + 1)
local origin = first .. ' ' .. at .. ' '
for index, change in ipairs(changes) do
  local events, size, lost = 0, 0, '0'
  if known[index] then
    events, size, lost = known[index]:match('^(%d+) (%d+) %d+ %d+ (%d+)')
  end
  numbers[2 * index - 1] = change.name
  numbers[2 * index] = string.format('%d %d %d %s %s', number(events) + change.events,
    number(size) + change.bytes, before + change.last, at, lost or '0')
  local newest, length, key = {}, 0, KEYS[3 + index]
  for argument = change.first_newest, change.last_newest, 2 do
    newest[length + 1] = ARGV[argument]
    newest[length + 2] = origin .. ARGV[argument + 1]
    length = length + 2
  end
  in_pieces(newest, 1, length, function(_, ...)
    change.keys = change.keys + redis.call('HSET', key, ...)
  end)
  in_pieces(ARGV, change.first_removed, change.last_removed, function(_, ...)
    change.keys = change.keys - redis.call('HDEL', key, ...)
  end)
  if length > 0 and change.keys > number(ARGV[7]) then full[#full + 1] = change.name end
end
in_pieces(numbers, 1, #numbers, function(_, ...) redis.call('HSET', topics, ...) end)
return { 'ok', first, full }
