-- Forget a run.
local found = call('HMGET', key, 'caller', 'key')
forget(run, found[1] or '', found[2])
return {'ok'}
