-- One conversation of a caller, or all of them from a place on, that of the newest run first: what is known of each.
local caller, one, before, most = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local whose, place = conversations_of(caller), '+inf'
if before ~= '' then
  local number = call('ZSCORE', whose, before)
  if not number then return {'gone', before} end
  place = '(' .. number
end
local ids = {one}
if one == '' then ids = call('ZRANGE', whose, place, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, most) end
local found = {}
for i, id in ipairs(ids) do
  local it = call('HMGET', of_conversation('is', caller, id), 'created', 'updated', 'run')
  if not it[3] then return {'gone', id} end
  found[i] = {id, it[1], it[2], it[3], row_of(it[3])}
end
return {'ok', whole(clock()), found}
