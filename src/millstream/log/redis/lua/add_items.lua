-- Put items at the end of the conversation of a run. A call that is made again is known by `once`, as long as few came since.
local epoch, once, remembered = ARGV[2], ARGV[3], 100
local found = call('HMGET', key, 'epoch', 'sealed', 'caller', 'conversation')
if not found[1] then return {'gone', store()} end
local caller, id = found[3] or '', found[4] or ''
if id == '' then return {'none'} end
local items, added = of_conversation('items', caller, id), of_conversation('added', caller, id)
call('LLEN', items)
if call('LPOS', added, once) then return {'ok'} end
if found[1] ~= epoch then return {'stale', found[1]} end
if found[2] then return {'closed'} end
for i = 4, #ARGV do call('RPUSH', items, ARGV[i]) end
call('LPUSH', added, once)
call('LTRIM', added, 0, remembered - 1)
return {'ok'}
