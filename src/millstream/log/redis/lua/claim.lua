-- Become the owner of a run, under the next epoch; or stay it, under the same one.
local owner, lease, has_last, last = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', tonumber(ARGV[5])
local found = call('HMGET', key, 'epoch', 'owner', 'lease', 'sealed', 'last')
if not found[1] then return {'gone', store()} end
if found[4] then return {'closed'} end
local now, epoch = clock(), tonumber(found[1])
local lives = found[3] and tonumber(found[3]) > now
if lives and found[2] ~= owner then return {'owned', found[2]} end
if has_last and tonumber(found[5]) ~= last then return {'moved', found[5]} end
call('ZSCORE', live, run)
if not lives then epoch = epoch + 1 end
call('HSET', key, 'epoch', whole(epoch), 'owner', owner, 'lease', whole(now + lease), 'updated', whole(now))
call('ZADD', live, 'XX', now + lease, run)
return {'ok', epoch}
