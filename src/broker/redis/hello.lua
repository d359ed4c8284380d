-- Asks how the log stands, tells what the caller knows, and shows that it can be written.
--
-- KEYS[4] nodes. ARGV[2] the caller's epoch or '', ARGV[3] the head it knows, ARGV[4] a name for a new
-- epoch, ARGV[5] the caller's name, ARGV[6] how long that counts in milliseconds.
--
-- Redis loses what was not on its disk or not on the replica that took over, and nobody tells. But
-- then it is another process (run_id) or has another history (master_replid), and some caller may
-- know a higher head than is left. A new epoch begins then, at an offset beyond all that were given:
-- `shared` is the last offset it has in common with the epoch before, `base` the one before its own
-- first, and `lost` the first offset that somebody knew of and that is lost, 0 if there is none.

local STEP = 1000000000
local MOST_EPOCHS = 64
local known_epoch, known_head, new_name = ARGV[2], number(ARGV[3]), ARGV[4]

local lineage = {}
for id, shared, base, lost in (redis.call('HGET', meta, 'lineage') or ''):gmatch('(%x+) (%d+) (%d+) (%d+)') do
  lineage[#lineage + 1] = { id, number(shared), number(base), number(lost) }
end

-- Begins an epoch behind everything that anybody has seen.
local function begin(lost)
  local top = math.max(head, known_head)
  local base = (math.floor(top / STEP) + 1) * STEP
  lineage[#lineage + 1] = { new_name, head, base, lost }
  head = base
  if #lineage > MOST_EPOCHS then table.remove(lineage, 1) end
end

local is_changed = stored[1] ~= identity
if is_changed and redis.call('EXISTS', log) == 1 then
  -- Never below what the stream has given out, whatever became of the rest.
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if last then head = math.max(head, number(last[1]:match('^%d+'))) end
end
if #lineage == 0 then
  if known_head > 0 or head > 0 then
    lineage[1] = { known_epoch == '' and '0' or known_epoch, 0, 0, 0 }
    begin(1)
  else
    lineage[1] = { new_name, 0, 0, 0 }
  end
  is_changed = true
else
  local at = 0
  for index, line in ipairs(lineage) do
    if line[1] == known_epoch then at = index end
  end
  local lost = 0
  if known_head > 0 and known_epoch ~= '' then
    if at == 0 then
      -- A history that this log knows nothing of: all of it is lost.
      table.insert(lineage, 1, { known_epoch, 0, 0, 0 })
      lineage[2][2], lineage[2][4] = 0, 1
      lost = 1
    elseif at == #lineage then
      if known_head > head then lost = head + 1 end
    else
      local child = lineage[at + 1]
      if known_head > child[2] then
        -- Readers elsewhere may have crossed without a word: they get it with the next epoch.
        if child[4] == 0 or known_head > lineage[#lineage][3] then lost = child[2] + 1 end
        child[4] = child[2] + 1
      end
    end
  end
  if lost > 0 or is_changed then
    begin(lost)
    is_changed = true
  end
end

local lines = {}
for index, line in ipairs(lineage) do
  lines[index] = line[1] .. ' ' .. text(line[2]) .. ' ' .. text(line[3]) .. ' ' .. text(line[4])
end
local lineage_text = table.concat(lines, ';')
if is_changed then
  redis.call('HSET', meta, 'identity', identity, 'lineage', lineage_text, 'epoch',
    lineage[#lineage][1], 'head', text(head), 'received', text(received))
end

redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', server_time())
redis.call('ZADD', KEYS[4], server_time() + number(ARGV[6]), ARGV[5])
return { lineage_text, text(head), text(trims), text(trimmed), text(bytes), text(server_time()) }
