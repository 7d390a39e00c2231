-- Forget a conversation with its items and its runs; the ids of these.
local caller, id = ARGV[2], ARGV[3]
local going = going_in(of_conversation('is', caller, id))
if going then return {'busy', going} end
call('ZSCORE', conversations_of(caller), id)
local index = of_conversation('runs', caller, id)
local runs = call('ZRANGE', index, 0, -1)
for _, each in ipairs(runs) do forget(each, caller, id, call('HGET', key_of(each), 'key')) end
call('DEL', index)
for _, what in ipairs({'is', 'items', 'added'}) do call('DEL', of_conversation(what, caller, id)) end
call('ZREM', conversations_of(caller), id)
return {'ok', runs}
