-- Shared answers: who asks a question now (a lease), and the answers that are kept. All times are microseconds of
-- Redis's clock. `answers.py` says what the fields are.

local SIZES, ENDS, ORDER = 'fleet:{answers}:sizes', 'fleet:{answers}:ends', 'fleet:{answers}:order'
local TOTAL = 'total'

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

local function text(number)
  return string.format('%.0f', number)
end

-- What is left of an answer's index entry goes away with it.
local function forget(key)
  local size = redis.call('HGET', SIZES, key)
  if size then
    redis.call('HDEL', SIZES, key)
    redis.call('HINCRBY', SIZES, TOTAL, -size)
  end
  redis.call('ZREM', ENDS, key)
  redis.call('ZREM', ORDER, key)
end

-- Finds an answer that will do, or whom to wait for, or gives the lease to the caller.
-- KEYS: the lease, then the answers. ARGV: the caller, a new id, the lease's ms, the greatest age that will do or -1,
-- '1' if what is good until a bar closes will do, and the id of a lease that is taken over.
local function ask(keys, args)
  local now = clock()
  local age, bar = tonumber(args[4]), args[5] == '1'
  for number = 2, #keys do
    local known = redis.call('HMGET', keys[number], 'at', 'till')
    local at, till = tonumber(known[1]), tonumber(known[2])
    if at and at > now then  -- the clock was set back: it would look young again in a while
      redis.call('DEL', keys[number])
      forget(keys[number])
    elseif at and (now - at <= age or (bar and now < till)) then
      return {text(now), 'answer', number - 2, known[1], known[2], redis.call('HGET', keys[number], 'body')}
    end
  end
  local lease = redis.call('HMGET', keys[1], 'state', 'id', 'owner', 'since')
  if lease[1] == 'asks' and lease[2] ~= args[6] then
    return {text(now), 'wait', lease[2], lease[3], lease[4]}
  end
  redis.call('HDEL', keys[1], 'code', 'why', 'failed', 'until')
  redis.call('HSET', keys[1], 'state', 'asks', 'id', args[2], 'owner', args[1], 'since', text(now))
  redis.call('PEXPIRE', keys[1], args[3])
  return {text(now), 'lead', args[2], args[1], text(now)}
end

-- How leases stand: for each its state, id and when its last answer was there.
local function look(keys)
  local found = {text(clock())}
  for number = 1, #keys do
    local lease = redis.call('HMGET', keys[number], 'state', 'id', 'done')
    found[number + 1] = {lease[1] or '', lease[2] or '', lease[3] or ''}
  end
  return found
end

-- All of a lease, with the answer that ended it.
local function see(keys)
  local names = {'state', 'id', 'owner', 'since', 'done', 'key', 'code', 'why', 'failed', 'until'}
  local lease = redis.call('HMGET', keys[1], unpack(names))
  local answer = {false, false, false}
  if lease[6] then
    answer = redis.call('HMGET', lease[6], 'at', 'till', 'body')
  end
  local found = {text(clock())}
  for number = 1, #names do
    found[number + 1] = lease[number] or ''
  end
  for number = 1, 3 do
    found[number + 1 + #names] = answer[number] or ''
  end
  return found
end

-- Keeps an answer, and ends the lease with it, unless somebody has taken that over, who goes on. The oldest make room.
-- KEYS: the answer, the lease. ARGV: the lease's id, at, till, the body, when it was there, how long it is kept in ms,
-- the most bytes of all, and the ms that the lease's end is kept.
local function keep(keys, args)
  local now = clock()
  local size, most = #args[4] + 200, tonumber(args[7])
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', ENDS, '-inf', now)) do
    forget(key)
  end
  forget(keys[1])
  while tonumber(redis.call('HGET', SIZES, TOTAL) or 0) + size > most do
    local oldest = redis.call('ZRANGE', ORDER, 0, 0)[1]
    if not oldest then
      break
    end
    redis.call('DEL', oldest)
    forget(oldest)
  end
  redis.call('DEL', keys[1])
  redis.call('HSET', keys[1], 'at', args[2], 'till', args[3], 'body', args[4])
  redis.call('PEXPIRE', keys[1], args[6])
  redis.call('HSET', SIZES, keys[1], size)
  redis.call('ZADD', ENDS, now + args[6] * 1000, keys[1])
  redis.call('ZADD', ORDER, now, keys[1])
  local total = redis.call('HINCRBY', SIZES, TOTAL, size)
  local ends = redis.call('ZRANGE', ENDS, -1, -1, 'WITHSCORES')[2]
  local last = math.ceil((ends - now) / 1000) + 60000
  for _, key in ipairs({SIZES, ENDS, ORDER}) do
    redis.call('PEXPIRE', key, last)
  end
  local lease = redis.call('HMGET', keys[2], 'state', 'id')
  redis.call('HSET', keys[2], 'done', args[5], 'key', keys[1])
  if lease[1] ~= 'asks' or lease[2] == args[1] then
    redis.call('HSET', keys[2], 'state', 'answered')
    redis.call('PEXPIRE', keys[2], args[8])
  end
  return total
end

-- Ends a lease without an answer, if nobody has taken it over.
-- KEYS: the lease. ARGV: its id, the ms that this is kept, the state; of an error its code, why, when it was there, and
-- until when its owner had time.
local function finish(keys, args)
  if redis.call('HGET', keys[1], 'id') ~= args[1] then
    return 0
  end
  redis.call('HSET', keys[1], 'state', args[3], 'code', args[4], 'why', args[5], 'failed', args[6], 'until', args[7])
  redis.call('PEXPIRE', keys[1], args[2])
  return 1
end

local verbs = {ask = ask, look = look, see = see, keep = keep, finish = finish}
local verb = table.remove(ARGV, 1)
return verbs[verb](KEYS, ARGV)
