-- The items of a conversation, from a place on, which is counted from the end where it is below 0.
local caller, id = ARGV[2], ARGV[3]
if call('EXISTS', of_conversation('is', caller, id)) == 0 then return {'gone'} end
return {'ok', call('LRANGE', of_conversation('items', caller, id), ARGV[4], -1)}
