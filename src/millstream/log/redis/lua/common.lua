-- What every script begins with. KEYS[1] is the prefix of all keys; KEYS[2] the channel prefix; ARGV[1] a run, or ''.
-- A key of another type must be met before the first change: what a script has done is not undone.
local prefix, run = KEYS[1], ARGV[1]
local call = redis.call

local function key_of(id) return prefix .. ':run:' .. id end
local key = key_of(run)
local log, raw, calls = key .. ':log', key .. ':raw', key .. ':calls'
local mail, said = key .. ':mail', key .. ':said'
local all_runs, live, ended = prefix .. ':runs', prefix .. ':live', prefix .. ':ended'

-- The log as a whole: one that has lost its data has another.
local function store() return call('GET', prefix .. ':store') or '' end

-- The clock of the engine, in milliseconds. No other clock is compared with.
local function clock()
  local time = call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function whole(number) return string.format('%d', number) end

local function of_caller(caller) return prefix .. ':caller:' .. caller end
-- What belongs to a conversation: it `is`, its `items`, its `runs`, and what was `added` last.
local function of_conversation(what, caller, id)
  return prefix .. ':conversation:' .. what .. ':' .. #caller .. ':' .. caller .. ':' .. id
end
local function conversations_of(caller) return prefix .. ':conversations:' .. caller end
local function of_key(caller, key) return prefix .. ':key:' .. #caller .. ':' .. caller .. ':' .. key end

-- Who follows a run hears of it: 'e', a position and the batch; 'm' and the number of a command; 'g' when it is gone.
local function tell_all(id, what) call('PUBLISH', KEYS[2] .. id, what) end

-- A run among those that have ended.
local function as_ended(id, caller, conversation)
  return cmsgpack.pack(conversation ~= '' and {id, caller, conversation} or {id, caller})
end

-- The last run of a conversation, where that has not ended.
local function going_in(conversation)
  local last = call('HGET', conversation, 'run')
  local found = last and call('HMGET', key_of(last), 'last', 'sealed')
  return found and found[1] and not found[2] and last
end

-- What a listing tells of a run, in this order; its status is the second.
local function row_of(id)
  return call('HMGET', key_of(id), 'agent', 'status', 'caller', 'options', 'key', 'created', 'updated', 'epoch', 'lease',
              'last', 'code', 'conversation')
end

-- A run that is kept from now on. Its place in the listings is its number, which only grows.
local function begin(id, now, fields)
  call('HGET', key_of(id), 'last')
  for _, index in ipairs({all_runs, live, ended, of_caller(fields.caller)}) do call('ZSCORE', index, id) end
  local number = call('INCR', prefix .. ':number')
  call('HSET', key_of(id), 'number', whole(number), 'created', whole(now), 'updated', whole(now), 'epoch', '0',
       'first', '1', 'last', '0', 'events', '0', 'bytes', '0', 'status', 'queued')
  for name, value in pairs(fields) do call('HSET', key_of(id), name, value) end
  call('ZADD', all_runs, number, id)
  call('ZADD', of_caller(fields.caller), number, id)
  call('ZADD', live, 0, id)
  return number
end

-- All that is kept of a run, also of one whose keys have expired: then the indexes only.
local function forget(id, caller, conversation, idempotency_key)
  local it = key_of(id)
  call('DEL', it, it .. ':log', it .. ':raw', it .. ':calls', it .. ':mail', it .. ':said')
  call('ZREM', all_runs, id)
  call('ZREM', live, id)
  call('ZREM', of_caller(caller), id)
  call('ZREM', ended, as_ended(id, caller, conversation))
  if conversation ~= '' then call('ZREM', of_conversation('runs', caller, conversation), id) end
  if idempotency_key and call('GET', of_key(caller, idempotency_key)) == id then
    call('DEL', of_key(caller, idempotency_key))
  end
  tell_all(id, 'g')
end
