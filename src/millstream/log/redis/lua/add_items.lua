-- Put items at the end of a conversation. A call that is made again is known by `once`, as long as few came since.
local caller, id, once, remembered = ARGV[2], ARGV[3], ARGV[4], 100
if call('EXISTS', of_conversation('is', caller, id)) == 0 then return {'gone'} end
local items, added = of_conversation('items', caller, id), of_conversation('added', caller, id)
call('LLEN', items)
if call('LPOS', added, once) then return {'ok'} end
for i = 5, #ARGV do call('RPUSH', items, ARGV[i]) end
call('LPUSH', added, once)
call('LTRIM', added, 0, remembered - 1)
return {'ok'}
