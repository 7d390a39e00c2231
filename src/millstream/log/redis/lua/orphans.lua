-- Runs that are queued or running and have no owner that lives, the oldest first.
local found = {}
for _, id in ipairs(call('ZRANGE', live, '-inf', clock(), 'BYSCORE')) do
  local number = call('ZSCORE', all_runs, id)
  if number then found[#found + 1] = {tonumber(number), id} end
end
table.sort(found, function(one, other) return one[1] < other[1] end)
local ids = {}
for i = 1, math.min(#found, tonumber(ARGV[2])) do ids[i] = found[i][2] end
return ids
