-- Write a batch: who writes is the owner, the position is the next one, the run has not ended, and there is room.
local epoch, first, last, body = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local size, raw_of, completes = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local status, code, ends, agent = ARGV[9], ARGV[10], ARGV[11] == '1', ARGV[12]
local has_checkpoint, checkpoint = ARGV[13] == '1', ARGV[14]
local most_events, most_bytes, spare = tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])
local retention = tonumber(ARGV[18])

local names = {'last', 'first', 'epoch', 'sealed', 'events', 'bytes', 'full_at', 'lease', 'caller', 'key', 'conversation'}
local found, it = call('HMGET', key, unpack(names)), {}
for i, name in ipairs(names) do it[name] = found[i] end
if not it.last and (epoch > 0 or first > 1) then return {'gone', store()} end
it.last, it.first = tonumber(it.last or 0), tonumber(it.first or 1)
if epoch ~= tonumber(it.epoch or 0) then return {'stale', it.epoch} end
if first > it.last + 1 then return {'hole', it.last} end
if first <= it.last then
  local there = call('XRANGE', log, last .. '-0', last .. '-0')[1]
  if there and there[2][2] == body then return {'ok', 0} end
  return {'overlap', it.last}
end
if it.sealed then return {'closed'} end

-- Room. Raw events of model calls that have ended are dropped first, then the run is told once.
it.events, it.bytes = tonumber(it.events or 0), tonumber(it.bytes or 0)
local count = last - first + 1
local function fits() return it.events + count <= most_events and it.bytes + size <= most_bytes end
local thinned = 0
local function thin()
  thinned = 1
  for _ = 1, call('LLEN', raw), 500 do
    for _, entry in ipairs(call('LPOP', raw, 500) or {}) do
      local of, at, events, bytes = unpack(cmsgpack.unpack(entry))
      if at < tonumber(call('HGET', calls, of) or 0) then
        if call('XDEL', log, at .. '-0') == 1 then
          it.events, it.bytes = it.events - events, it.bytes - bytes
        end
      else
        call('RPUSH', raw, entry)
      end
    end
  end
  call('HSET', key, 'events', whole(it.events), 'bytes', whole(it.bytes))
end
if not ends then
  if it.full_at then
    if size > 0 or last > tonumber(it.full_at) + spare then return {'full', thinned} end
  elseif not fits() then
    thin()
    if not fits() then
      call('HSET', key, 'full_at', whole(it.last))
      return {'full', thinned}
    end
  end
end

local now = clock()
local terminal = ends and as_ended(run, it.caller or '', it.conversation or '')
if status ~= '' then
  call('ZSCORE', live, run)
  call('ZSCORE', ended, run)
end
if not found[1] then
  begin(run, now, {caller = '', agent = agent})
end
call('XADD', log, last .. '-0', 'batch', body, 'first', ARGV[3], 'size', ARGV[6])
local set = {'last', ARGV[4], 'updated', whole(now), 'events', whole(it.events + count), 'bytes', whole(it.bytes + size)}
local function put(name, value) set[#set + 1] = name; set[#set + 1] = value end
if has_checkpoint then put('checkpoint', checkpoint); put('checkpoint_at', ARGV[4]) end
if status ~= '' then put('status', status); put('code', code) end
if ends then put('sealed', '1') end
call('HSET', key, unpack(set))
if raw_of ~= '' then call('RPUSH', raw, cmsgpack.pack({raw_of, last, count, size})) end
if completes ~= '' then call('HSET', calls, completes, ARGV[3]) end
if ends or status == 'paused' then call('HDEL', key, 'lease', 'owner') end
if ends then
  call('DEL', raw, calls)
  call('ZREM', live, run)
  call('ZADD', ended, now, terminal)
  if retention >= 0 then
    local dies = whole(now + retention)
    for _, each in ipairs({key, log, mail, said}) do call('PEXPIREAT', each, dies) end
    if it.key then call('PEXPIREAT', of_key(it.caller, it.key), dies) end
    -- Whoever ends a run clears away what is left in the indexes of some that have expired.
    for _, old in ipairs(call('ZRANGE', ended, 0, 7)) do
      local id, caller, conversation = unpack(cmsgpack.unpack(old))
      if call('EXISTS', key_of(id)) == 0 then forget(id, caller, conversation or '') end
    end
  end
elseif status == 'paused' then
  call('ZREM', live, run)
elseif status ~= '' then
  call('ZADD', live, it.lease or 0, run)
end
tell_all(run, 'e' .. ARGV[3] .. ' ' .. body)
return {'ok', thinned}
