-- Forget the positions before one. The batch that holds it stays whole.
local found = call('HMGET', key, 'first', 'last', 'events', 'bytes')
if not found[2] then return {'gone', store()} end
local first = math.min(math.max(tonumber(ARGV[2]), tonumber(found[1])), tonumber(found[2]) + 1)
local events, bytes = tonumber(found[3]), tonumber(found[4])
local before = '(' .. whole(first) .. '-0'
repeat
  local old = call('XRANGE', log, '-', before, 'COUNT', 100)
  for _, entry in ipairs(old) do
    local fields = entry[2]
    events = events - (tonumber(string.match(entry[1], '^%d+')) - tonumber(fields[4]) + 1)
    bytes = bytes - tonumber(fields[6])
    call('XDEL', log, entry[1])
  end
until #old == 0
call('HSET', key, 'first', whole(first), 'events', whole(events), 'bytes', whole(bytes))
return {'ok', first}
