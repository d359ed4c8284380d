-- Drops newest values that have not changed meanwhile.
--
-- KEYS[1] the newest values of a topic. ARGV: of each its key, and the first offset of the batch it
-- came with.

for index = 1, #ARGV, 2 do
  local value = redis.call('HGET', KEYS[1], ARGV[index])
  if value and value:match('^%d+') == ARGV[index + 1] then redis.call('HDEL', KEYS[1], ARGV[index]) end
end
return 1
