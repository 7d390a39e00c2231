-- Put a command into the mail of a run, once where it has a key. A call that is made again is known by `once`.
local has_key, name, letter, once = ARGV[2] == '1', 'key:' .. ARGV[3], ARGV[4], 'once:' .. ARGV[5]
local found = call('HMGET', key, 'last', 'sealed')
if not found[1] then return {'gone', store()} end
local done = call('HGET', said, once)
if done then return {'ok', tonumber(done)} end
if found[2] then return {'closed'} end
local known = has_key and call('HGET', said, name)
if known then
  if call('LINDEX', mail, tonumber(known) - 1) ~= letter then return {'conflict'} end
  return {'ok', tonumber(known)}
end
local number = call('RPUSH', mail, letter)
call('HSET', said, once, whole(number))
if has_key then call('HSET', said, name, whole(number)) end
tell_all(run, 'm' .. whole(number))
return {'ok', number}
