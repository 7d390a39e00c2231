-- End the lease of one who has it.
if call('HGET', key, 'epoch') ~= ARGV[2] then return {'ok'} end
call('ZSCORE', live, run)
call('HDEL', key, 'lease', 'owner')
call('ZADD', live, 'XX', 0, run)
return {'ok'}
