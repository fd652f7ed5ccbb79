-- One lane's budget: every bucket of a call in one atomic step, by Redis's own clock.
--
-- Times are whole microseconds, costs whole thousandths: both stay exact in Lua's doubles below 2^53. Grants of a
-- bucket never go back in time: whoever asked first is first, and a heavy call can't be overtaken for ever. A call is
-- planned on all its buckets before anything is written, so a refusal leaves no trace. Every key expires when what it
-- says can no longer hold anyone up.
--
-- `clock()`, microseconds since 1970, is defined by the line that the loader puts before this file.

local FIELDS = 6 -- arguments per bucket: kind, amount, window, margin, cost, cap

local function whole(number)
  return string.format('%.0f', number)
end

local function expire(key, at_us)
  redis.call('PEXPIREAT', key, whole(math.ceil(at_us / 1000) + 1))
end

-- How far the exchange's clock is ahead of Redis's.
local function offset_of(key)
  return tonumber(redis.call('GET', key) or 0)
end

-- A pause is `<until>:<reason>`; the longest of several counts.
local function longest(pauses, from)
  local till = 0
  for number = from, #pauses do
    if pauses[number] then
      till = math.max(till, tonumber(string.match(pauses[number], '^%d+')))
    end
  end
  return till
end

-- What Redis remembers has an epoch, `<id>:<since>`. A caller that knows another one than we find has seen grants that
-- are forgotten now (Redis was emptied): then every bucket counts as full at `since`, the last instant that was handed
-- out before. `?` says that Redis was restarted and may remember only part.
local function epoch(found, known, new, now, limit)
  local id, since = string.match(found or '', '^(%x+):(%d+)$')
  since = tonumber(since or 0)
  if known == '?' or known ~= '' and known ~= id and since == 0 then
    since = now + limit
  end
  return id or new, since
end

-- rolling: a list of pairs: the time of a grant, and all that was spent up to and with it. What stands in the window of
-- a grant is then a difference of two sums, and the first grant that must have left the window is found by its sum.
local rolling = {}

local function spent(key, index)
  return tonumber(redis.call('LINDEX', key, 2 * index + 1))
end

-- The first grant with at least `sum` spent; the last grant always has.
local function first(key, sum)
  local head = redis.call('LRANGE', key, 0, 3)
  if tonumber(head[2]) >= sum then
    return 0, tonumber(head[1])
  end
  if tonumber(head[4]) >= sum then
    return 1, tonumber(head[3])
  end
  local low, high, step = 1, redis.call('LLEN', key) / 2 - 1, 1
  while low + step < high do
    if spent(key, low + step) >= sum then
      high = low + step
    else
      low = low + step
      step = step * 2
    end
  end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if spent(key, middle) >= sum then
      high = middle
    else
      low = middle
    end
  end
  return high, tonumber(redis.call('LINDEX', key, 2 * high))
end

function rolling.read(b)
  local tail = redis.call('LRANGE', b.key, -2, -1)
  b.last, b.total = tonumber(tail[1] or 0), tonumber(tail[2] or 0)
  local leave = b.total + b.cost - b.cap
  if leave > 0 then
    local index, at = first(b.key, leave)
    b.first = b.cap == b.amount and index
    b.last = math.max(b.last, at + b.window + b.margin)
  end
  if b.since > 0 then
    b.last = math.max(b.last, b.since + b.window + b.margin)
  end
end

function rolling.fit(_, t)
  return t
end

function rolling.take(b, t)
  redis.call('RPUSH', b.key, whole(t), whole(b.total + b.cost))
  -- What no later call can be held up by: a live call of no cost looks for this sum, all others for more.
  local leave = b.total + b.cost - b.amount
  if leave > 0 then
    local index = b.first or first(b.key, leave)
    if index > 0 then
      redis.call('LTRIM', b.key, 2 * index, -1)
    end
  end
  expire(b.key, t + b.window + b.margin)
end

function rolling.used(b, now)
  local low, high = -1, redis.call('LLEN', b.key) / 2
  if high == 0 then
    return 0
  end
  local since = now - b.window
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if tonumber(redis.call('LINDEX', b.key, 2 * middle)) <= since then
      low = middle
    else
      high = middle
    end
  end
  local total = spent(b.key, redis.call('LLEN', b.key) / 2 - 1)
  return low < 0 and total or total - spent(b.key, low)
end

-- fixed: the exchange's own windows. One counter is enough, as no grant goes back behind the last.
local fixed = {}

function fixed.read(b)
  local state = redis.call('HMGET', b.key, 'window', 'used', 'last')
  b.index, b.spent, b.last = tonumber(state[1] or -1), tonumber(state[2] or 0), tonumber(state[3] or 0)
  local forgotten = math.floor((b.since + b.offset) / b.window)
  if b.since > 0 and forgotten >= b.index then
    b.index, b.spent = forgotten, b.amount
  end
end

function fixed.fit(b, t)
  local index = math.max(math.floor((t + b.offset) / b.window), b.index)
  if t > (index + 1) * b.window - b.offset - b.margin or index == b.index and b.spent + b.cost > b.cap then
    index = index + 1
  end
  return math.max(t, index * b.window - b.offset + b.margin)
end

function fixed.write(b, index, used, last)
  redis.call('HSET', b.key, 'window', whole(index), 'used', whole(used), 'last', whole(last))
  expire(b.key, math.max((index + 1) * b.window - b.offset, last) + b.margin)
end

function fixed.take(b, t)
  local index = math.floor((t + b.offset) / b.window)
  fixed.write(b, index, (index == b.index and b.spent or 0) + b.cost, t)
end

function fixed.used(b, now)
  fixed.read(b)
  local index = math.floor((now + b.offset) / b.window)
  return b.index < index and 0 or b.index > index and b.amount or b.spent
end

-- decaying: a level that falls by amount/window and must stay under amount, kept as the time at which it reaches zero.
-- paced is the same, but a cost above the amount is let in at level zero and leaves a debt.
local decaying = {}

function decaying.read(b)
  local state = redis.call('HMGET', b.key, 'empty', 'last')
  b.empty, b.last = tonumber(state[1] or 0), tonumber(state[2] or 0)
  if b.since > 0 then
    b.empty = math.max(b.empty, b.since + b.window)
  end
  b.rise = math.ceil(b.cost * b.window / b.amount)
  local room = math.floor(b.cap * b.window / b.amount) - b.margin
  b.last = math.max(b.last, b.empty + math.min(b.rise, room) - room)
end

function decaying.fit(_, t)
  return t
end

function decaying.take(b, t)
  local empty = math.max(b.empty, t) + b.rise
  redis.call('HSET', b.key, 'empty', whole(empty), 'last', whole(t))
  expire(b.key, empty)
end

function decaying.used(b, now)
  local empty = tonumber(redis.call('HGET', b.key, 'empty') or 0)
  return math.max(0, empty - now) * b.amount / b.window
end

local KINDS = { rolling = rolling, fixed = fixed, decaying = decaying, paced = decaying }

local function bucket(number, from, offset, since)
  return {
    key = KEYS[number],
    kind = KINDS[ARGV[from]],
    amount = tonumber(ARGV[from + 1]),
    window = tonumber(ARGV[from + 2]),
    margin = tonumber(ARGV[from + 3]),
    cost = tonumber(ARGV[from + 4]),
    cap = tonumber(ARGV[from + 5]),
    offset = offset,
    since = since or 0,
  }
end

local run = {}

-- KEYS: buckets, clock, epoch, pauses. ARGV: reserve, number of buckets, longest wait, the epoch the caller knows, one
-- to begin, how far ahead instants are handed out, how soon the caller can be ready to send, then six a bucket.
-- Returns {1 if granted, delay, instant, 1 if a pause is why not, epoch}.
function run.reserve()
  local now, count, limit = clock(), tonumber(ARGV[2]), tonumber(ARGV[3])
  local shared = redis.call('MGET', unpack(KEYS, count + 1))
  local offset, pause = tonumber(shared[1] or 0), longest(shared, 3)
  local id, since = epoch(shared[2], ARGV[4], ARGV[5], now, tonumber(ARGV[6]))
  redis.call('SET', KEYS[count + 2], id .. ':' .. whole(since), 'EX', 90000)
  local lead = tonumber(ARGV[7])
  local t = math.max(now + lead, pause)
  local buckets = {}
  for number = 1, count do
    local b = bucket(number, 8 + (number - 1) * FIELDS, offset, since)
    b.kind.read(b)
    t = math.max(t, b.last)
    buckets[number] = b
  end
  -- Fixed windows push each other on, past one another's guards, until one instant suits them all.
  local fits, rounds = false, 0
  while not fits and rounds < 64 do
    local before = t
    for _, b in ipairs(buckets) do
      t = b.kind.fit(b, t)
    end
    fits, rounds = t == before, rounds + 1
  end
  if t - now > limit + lead or not fits then
    return { 0, t - now, t, pause - now > limit + lead and 1 or 0, id }
  end
  for _, b in ipairs(buckets) do
    b.kind.take(b, t)
  end
  return { 1, t - now, t, 0, id }
end

-- KEYS: pauses. ARGV: paused. Returns how long they still hold.
function run.paused()
  return math.max(0, longest(redis.call('MGET', unpack(KEYS)), 1) - clock())
end

-- KEYS: pauses to set. ARGV: pause, microseconds, reason. A pause is never made shorter.
function run.pause()
  local till = clock() + tonumber(ARGV[2])
  for _, key in ipairs(KEYS) do
    if till > longest({ redis.call('GET', key) }, 1) then
      redis.call('SET', key, whole(till) .. ':' .. ARGV[3], 'PXAT', whole(math.ceil(till / 1000) + 1))
    end
  end
end

-- KEYS: a fixed bucket, clock. ARGV: observe, what the exchange has counted, microseconds since the call was sent, then
-- the bucket's six. Only a call that was sent in the window it was answered in says something about that window.
function run.observe()
  local now, used = clock(), tonumber(ARGV[2])
  local b = bucket(1, 4, offset_of(KEYS[2]))
  fixed.read(b)
  local index = math.floor((now + b.offset) / b.window)
  if math.floor((now - tonumber(ARGV[3]) + b.offset) / b.window) ~= index then
    return
  end
  if index > b.index or index == b.index and used > b.spent then
    fixed.write(b, index, used, b.last)
  end
end

-- KEYS: clock. ARGV: clock, how far the exchange's clock is ahead, for how long to believe it.
function run.clock()
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end

-- KEYS: buckets, clock. ARGV: usage, number of buckets, nothing, then six a bucket. Returns thousandths per bucket.
function run.usage()
  local now, count, used = clock(), tonumber(ARGV[2]), {}
  for number = 1, count do
    local b = bucket(number, 4 + (number - 1) * FIELDS, offset_of(KEYS[count + 1]))
    used[number] = math.floor(math.min(b.kind.used(b, now), b.amount))
  end
  return used
end

return run[ARGV[1]]()
