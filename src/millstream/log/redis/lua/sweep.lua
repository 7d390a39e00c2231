-- Forget some of the runs that ended long ago: how many those were, and whether there are more.
local most = 100
local old = call('ZRANGE', ended, '-inf', clock() - tonumber(ARGV[2]), 'BYSCORE', 'LIMIT', 0, most)
local count = 0
for _, each in ipairs(old) do
  local id, caller, conversation = unpack(cmsgpack.unpack(each))
  local found = call('HMGET', key_of(id), 'last', 'key')
  if found[1] then count = count + 1 end
  forget(id, caller, conversation or '', found[2])
end
return {count, #old == most and 1 or 0}
