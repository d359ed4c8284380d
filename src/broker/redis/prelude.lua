-- What every script of the log begins with: are the keys ours, and whose history is this?
--
-- KEYS[1] meta, KEYS[2] log, KEYS[3] topics. ARGV[1] the time in milliseconds, where it is not the
-- server's own.

local meta, log, topics = KEYS[1], KEYS[2], KEYS[3]

local function number(value) return tonumber(value or '') or 0 end
local function text(value) return string.format('%d', value) end

for key, kind in pairs({ [meta] = 'hash', [log] = 'stream', [topics] = 'hash' }) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then
    return redis.error_reply('FOREIGN ' .. key .. ' is a ' .. found .. ', not the ' .. kind .. ' of a hub')
  end
end

local info = redis.call('INFO', 'server', 'replication')
local identity = (info:match('run_id:(%w+)') or '') .. ':' .. (info:match('master_replid:(%w+)') or '')

local stored = redis.call('HMGET', meta, 'identity', 'epoch', 'head', 'received', 'trims', 'trimmed', 'bytes')
local epoch, head, received = stored[2] or '', number(stored[3]), number(stored[4])
local trims, trimmed, bytes = number(stored[5]), number(stored[6]), number(stored[7])
local function server_time()
  local time = redis.call('TIME')
  return number(time[1]) * 1000 + math.floor(number(time[2]) / 1000)
end
local time = ARGV[1] ~= '' and number(ARGV[1]) or server_time()
-- Never before the newest event, but where that lies further ahead than a clock is ever slewed: the
-- clock was ahead then.
local MOST_AHEAD = 10000
if time > received or received > time + MOST_AHEAD then received = time end
