-- Keep a run for another while, also where the lease had run out and nobody came.
local found = call('HMGET', key, 'epoch', 'sealed')
if not found[1] then return {'gone', store()} end
if found[1] ~= ARGV[2] then return {'stale', found[1]} end
if found[2] then return {'ok'} end
local ends = clock() + tonumber(ARGV[3])
call('ZSCORE', live, run)
call('HSET', key, 'lease', whole(ends))
call('ZADD', live, 'XX', ends, run)
return {'ok'}
