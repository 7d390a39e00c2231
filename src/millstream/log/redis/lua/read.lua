-- The batches behind a position, at most so many, each behind its first position; and how far the run reaches.
local found = call('HMGET', key, 'first', 'last', 'sealed')
if not found[2] then return {'gone', store()} end
local batches = {}
if ARGV[3] ~= '0' then
  for _, entry in ipairs(call('XRANGE', log, '(' .. ARGV[2] .. '-0', '+', 'COUNT', ARGV[3])) do
    batches[#batches + 1] = tonumber(entry[2][4])
    batches[#batches + 1] = entry[2][2]
  end
end
return {'ok', tonumber(found[1]), tonumber(found[2]), found[3] and 1 or 0, call('LLEN', mail), batches}
