-- Shared answers: who asks a question now (a lease), and the answers that are kept. All times are microseconds of
-- Redis's clock. `answers.py` says what the fields are.

local SIZES, ENDS, ORDER = 'fleet:{answers}:sizes', 'fleet:{answers}:ends', 'fleet:{answers}:order'
local TOTAL = 'total'
-- The latest time that was seen, as closely as STEP_US, for as long as any answer lasts.
local CLOCK, STEP_US, LONGEST_MS = 'fleet:{answers}:clock', 50000, 90000000

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

local function text(number)
  return string.format('%.0f', number)
end

-- The time, where ages depend on it: if the clock was set back all answers would look younger, and are forgotten.
local function true_clock()
  local now, latest = clock(), tonumber(redis.call('GET', CLOCK) or 0)
  if now < latest then
    for _, key in ipairs(redis.call('ZRANGE', ORDER, 0, -1)) do
      redis.call('UNLINK', key)
    end
    redis.call('DEL', SIZES, ENDS, ORDER)
  end
  if now < latest or now > latest + STEP_US then
    redis.pcall('SET', CLOCK, text(now), 'PX', LONGEST_MS) -- Where it takes no writes, answers are given still.
  end
  return now
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
-- '1' if what is good until a bar closes will do, the id of a lease that is taken over, and the caller's lanes.
local function ask(keys, args)
  local now = true_clock()
  local age, bar = tonumber(args[4]), args[5] == '1'
  for number = 2, #keys do
    local known = redis.call('HMGET', keys[number], 'at', 'there', 'till')
    local at, till = tonumber(known[1]), tonumber(known[3])
    if at and at <= now and (now - at <= age or (bar and now < till)) then
      local body = redis.call('HGET', keys[number], 'body')
      return {text(now), 'answer', number - 2, known[1], known[2] or '', known[3], body}
    end
  end
  local lease = redis.call('HMGET', keys[1], 'state', 'id', 'owner')
  if lease[1] == 'asks' and lease[2] ~= args[6] then
    return {text(now), 'wait', lease[2], lease[3]}
  end
  redis.call('HDEL', keys[1], 'code', 'why', 'failed', 'until', 'encoding', 'turn')
  redis.call('HSET', keys[1], 'state', 'asks', 'id', args[2], 'owner', args[1], 'lanes', args[7])
  redis.call('HSET', keys[1], 'since', text(now)) -- Dispatchers of the version before read it.
  redis.call('PEXPIRE', keys[1], args[3])
  return {text(now), 'lead', args[2], args[1]}
end

-- How leases stand: for each its state, its id, what tells its last answer from others, and its owner's turn.
local function look(keys)
  local found = {text(clock())}
  for number = 1, #keys do
    local lease = redis.call('HMGET', keys[number], 'state', 'id', 'done', 'turn')
    found[number + 1] = {lease[1] or '', lease[2] or '', lease[3] or '', lease[4] or ''}
  end
  return found
end

-- All of a lease, with the answer that ended it.
local function see(keys)
  local names = {'state', 'id', 'owner', 'done', 'key', 'code', 'why', 'failed', 'until', 'encoding', 'lanes', 'turn'}
  local lease = redis.call('HMGET', keys[1], unpack(names))
  local answer = {false, false, false, false, false}
  if lease[5] then
    answer = redis.call('HMGET', lease[5], 'at', 'there', 'till', 'body', 'refusal')
    answer[2] = answer[2] or lease[4] -- Workers of the version before say it of the lease alone.
  end
  local found = {text(clock())}
  for number = 1, #names do
    found[number + 1] = lease[number] or ''
  end
  for number = 1, 5 do
    found[number + 1 + #names] = answer[number] or ''
  end
  return found
end

-- Puts an answer there, for so many ms, or for as long as the one that it replaces. The oldest make room.
local function put(key, now, times, body, kept_ms, most)
  local size, left_ms = #body + 200, redis.call('PTTL', key)
  for _, ended in ipairs(redis.call('ZRANGEBYSCORE', ENDS, '-inf', now)) do
    forget(ended)
  end
  forget(key)
  while tonumber(redis.call('HGET', SIZES, TOTAL) or 0) + size > most do
    local oldest = redis.call('ZRANGE', ORDER, 0, 0)[1]
    if not oldest then
      break
    end
    redis.call('DEL', oldest)
    forget(oldest)
  end
  redis.call('DEL', key)
  redis.call('HSET', key, 'at', times.at, 'there', times.there, 'till', times.till, 'body', body)
  if times.refusal == '1' then
    redis.call('HSET', key, 'refusal', '1')
  end
  kept_ms = math.max(kept_ms, left_ms)
  redis.call('PEXPIRE', key, kept_ms)
  redis.call('HSET', SIZES, key, size)
  redis.call('ZADD', ENDS, now + kept_ms * 1000, key)
  redis.call('ZADD', ORDER, now, key)
  redis.call('HINCRBY', SIZES, TOTAL, size)
  local ends = redis.call('ZRANGE', ENDS, -1, -1, 'WITHSCORES')[2]
  local last = math.ceil((ends - now) / 1000) + 60000
  for _, index in ipairs({SIZES, ENDS, ORDER}) do
    redis.call('PEXPIRE', index, last)
  end
end

-- Keeps an answer, unless one that left later is there, and ends the lease with it, unless somebody has taken it over.
-- Returns how many bytes all answers have.
-- KEYS: the answer, the lease. ARGV: the lease's id, at, there, till, the body, how long it is kept in ms, the most
-- bytes of all, the ms that the lease's end is kept, and '1' for a refusal.
local function keep(keys, args)
  local now, at = true_clock(), tonumber(args[2])
  local known = tonumber(redis.call('HGET', keys[1], 'at') or 0)
  if at <= now and (known <= at or known > now) then
    local times = {at = args[2], there = args[3], till = args[4], refusal = args[9]}
    put(keys[1], now, times, args[5], tonumber(args[6]), tonumber(args[7]))
  end
  local lease = redis.call('HMGET', keys[2], 'state', 'id')
  redis.call('HSET', keys[2], 'done', args[3], 'key', keys[1])
  if lease[1] ~= 'asks' or lease[2] == args[1] then
    redis.call('HSET', keys[2], 'state', 'answered')
    redis.call('PEXPIRE', keys[2], args[8])
  end
  return tonumber(redis.call('HGET', SIZES, TOTAL) or 0)
end

-- Ends a lease without an answer, if it has none, and nobody has taken it over.
-- KEYS: the lease. ARGV: its id, the ms that this is kept, and its fields now: the state; of an error its code, why,
-- when it was there (failed), and until when its owner had time.
local function finish(keys, args)
  local lease = redis.call('HMGET', keys[1], 'state', 'id')
  if lease[1] ~= 'asks' or lease[2] ~= args[1] then
    return 0
  end
  redis.call('HSET', keys[1], unpack(args, 3))
  redis.call('PEXPIRE', keys[1], args[2])
  return 1
end

-- Notes when the owner of a lease has its turn at a limit.
-- KEYS: the lease. ARGV: its id, and the turn.
local function waits(keys, args)
  local lease = redis.call('HMGET', keys[1], 'state', 'id')
  if lease[1] == 'asks' and lease[2] == args[1] then
    redis.call('HSET', keys[1], 'turn', args[2])
  end
end

local verbs = {ask = ask, look = look, see = see, waits = waits, keep = keep, finish = finish}
local verb = table.remove(ARGV, 1)
return verbs[verb](KEYS, ARGV)
