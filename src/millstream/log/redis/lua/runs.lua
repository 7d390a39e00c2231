-- Runs, the newest first: of a number of places in a listing those whose status is asked for; and the place behind.
local has_caller, caller, wanted = ARGV[2] == '1', ARGV[3], ARGV[4]
local place, places, most = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local has_conversation, conversation = ARGV[8] == '1', ARGV[9]
if run ~= '' then
  local number = call('ZSCORE', all_runs, run)
  if not number then return {'gone', store()} end
  place = '(' .. number
end
local index = has_caller and of_caller(caller) or all_runs
if has_caller and has_conversation then index = of_conversation('runs', caller, conversation) end
local members = call('ZRANGE', index, place, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, places, 'WITHSCORES')
local rows, now = {}, whole(clock())
for i = 1, #members, 2 do
  local row = row_of(members[i])
  place = '(' .. members[i + 1]
  local is_wanted = row[2] and (wanted == '' or string.find(wanted, ' ' .. row[2] .. ' ', 1, true))
  if is_wanted and (not has_conversation or row[12] == conversation) then
    table.insert(row, 1, members[i])
    rows[#rows + 1] = row
    if #rows == most then return {'ok', now, rows, ''} end
  end
end
return {'ok', now, rows, #members == places * 2 and place or ''}
