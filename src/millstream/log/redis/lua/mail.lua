-- The commands behind a number; and whether more may come.
local found = call('HMGET', key, 'last', 'sealed')
if not found[1] then return {'gone', store()} end
return {'ok', found[2] and 1 or 0, call('LRANGE', mail, ARGV[2], -1)}
