-- Keep a run that has not begun, or find the one that this caller's key has made already.
local agent, request, caller, options = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local has_key, idempotency_key, once, conversation = ARGV[6] == '1', ARGV[7], ARGV[8], ARGV[9]
local at = has_key and of_key(caller, idempotency_key)
local known = at and call('GET', at)
if known and call('EXISTS', key_of(known)) == 1 then
  if call('HGET', key_of(known), 'request') ~= request then return {'conflict', known} end
  return {'ok', known}
end
-- Asked again, since the first answer was lost.
if call('HGET', key, 'once') == once then return {'ok', run} end
if call('EXISTS', key) == 1 then return {'exists'} end
local has_conversation, whose = conversation ~= '', conversations_of(caller)
local it, runs = of_conversation('is', caller, conversation), of_conversation('runs', caller, conversation)
local going = has_conversation and going_in(it)
if going then return {'busy', going} end
local fields = {caller = caller, agent = agent, request = request, options = options, once = once, conversation = conversation}
if has_key then fields.key = idempotency_key end
if has_conversation then
  call('ZSCORE', runs, run)
  call('ZSCORE', whose, conversation)
end
local now = clock()
local number = begin(run, now, fields)
if at then call('SET', at, run) end
if has_conversation then
  call('HSETNX', it, 'created', whole(now))
  call('HSET', it, 'updated', whole(now), 'run', run)
  call('ZADD', runs, number, run)
  call('ZADD', whose, number, conversation)
end
return {'ok', run}
