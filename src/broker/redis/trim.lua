-- Takes events out of the log and notes which topics lost what, or does nothing.
--
-- ARGV[2] how often retention had taken something when the caller looked, ARGV[3] the last offset to
-- leave the stream or '', ARGV[4] the bytes that leave it; the number of marks, for each its name and
-- offset; the number of topics, for each: its name, events, bytes and the last offset that leave; the
-- number of topics to forget if they hold nothing, for each its name and the key of its newest values,
-- which keep a topic of the hub's own; the number of forgotten topics whose loss becomes everybody's, and
-- their names.

if text(trims) ~= ARGV[2] or stored[1] ~= identity then return 0 end
local next_argument = 4
local function take()
  next_argument = next_argument + 1
  return ARGV[next_argument]
end
local function numbers(name)
  local a, b, c, d, e = (redis.call('HGET', topics, name) or ''):match('(%d+) (%d+) (%d+) (%d+) (%d+)')
  return number(a), number(b), number(c), number(d), number(e)
end

local function is_forgotten(name)
  return (redis.call('HGET', topics, name) or ''):sub(-2) == ' f'
end

if ARGV[3] ~= '' then
  redis.call('XTRIM', log, 'MINID', text(number(ARGV[3]) + 1) .. '-0')
  redis.call('HSET', meta, 'trimmed', text(math.max(trimmed, number(ARGV[3]))), 'bytes',
    text(math.max(0, bytes - number(ARGV[4]))))
end
for _ = 1, number(take()) do
  local name, offset = take(), take()
  redis.call('HSET', meta, name, offset)
end
for _ = 1, number(take()) do
  local name, gone, size, through = take(), number(take()), number(take()), number(take())
  local events, held, last, at, lost = numbers(name)
  redis.call('HSET', topics, name, table.concat({ text(math.max(0, events - gone)),
    text(math.max(0, held - size)), text(last), text(at), text(math.max(lost, through)) }, ' '))
end
-- A forgotten topic takes no room, and its numbers end with ' f': what it had lost is its own loss.
local forgotten, count = number(redis.call('HGET', meta, 'forgotten_through')), 0
for _ = 1, number(take()) do
  local name, key = take(), take()
  local events, _, last, at, lost = numbers(name)
  local is_own = name == 'hub' or name:sub(1, 4) == 'hub.'
  if events == 0 and not is_forgotten(name) and not (is_own and redis.call('EXISTS', key) == 1) then
    redis.call('HSET', topics, name, table.concat({ '0 0', text(last), text(at), text(lost), 'f' }, ' '))
    count = count + 1
    if is_own and redis.call('HEXISTS', meta, 'own_topics') == 1 then
      redis.call('HINCRBY', meta, 'own_topics', -1)
    end
    redis.call('UNLINK', key)
  end
end
for _ = 1, number(take()) do
  local name = take()
  if is_forgotten(name) then
    local _, _, _, _, lost = numbers(name)
    forgotten = math.max(forgotten, lost)
    count = count - redis.call('HDEL', topics, name)
  end
end
redis.call('HINCRBY', meta, 'forgotten_topics', count)
redis.call('HSET', meta, 'forgotten_through', text(forgotten), 'trims', text(trims + 1))
return 1
