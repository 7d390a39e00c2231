-- Keep a run that has not begun, or find the one that this caller's key has made already.
local agent, request, caller, options = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local has_key, idempotency_key, once = ARGV[6] == '1', ARGV[7], ARGV[8]
local at = has_key and of_key(caller, idempotency_key)
local known = at and call('GET', at)
if known and call('EXISTS', key_of(known)) == 1 then
  if call('HGET', key_of(known), 'request') ~= request then return {'conflict', known} end
  return {'ok', known}
end
-- Asked again, since the first answer was lost.
if call('HGET', key, 'once') == once then return {'ok', run} end
if call('EXISTS', key) == 1 then return {'exists'} end
local fields = {caller = caller, agent = agent, request = request, options = options, once = once}
if has_key then fields.key = idempotency_key end
begin(run, clock(), fields)
if at then call('SET', at, run) end
return {'ok', run}
