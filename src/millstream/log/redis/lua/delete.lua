-- Forget a run.
local found = call('HMGET', key, 'caller', 'conversation', 'key')
forget(run, found[1] or '', found[2] or '', found[3])
return {'ok'}
