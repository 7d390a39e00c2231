-- All that is known of a run; and the time.
local found = call('HGETALL', key)
if #found == 0 then return {'gone', store()} end
return {'ok', whole(clock()), found}
