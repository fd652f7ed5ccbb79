-- One lane's budget: every bucket of a call in one atomic step, by Redis's own clock.
--
-- Times are whole microseconds, costs whole thousandths: both stay exact in Lua's doubles below 2^53. Grants of a
-- bucket never go back in time: whoever asked first is first, and a heavy call can't be overtaken for ever. A call is
-- planned on all its buckets before anything is written, so a refusal leaves no trace. Every key expires when what it
-- says can no longer hold anyone up.
--
-- `clock()`, microseconds since 1970, is defined by the line that the loader puts before this file.

local FIELDS = 6 -- arguments per bucket: kind, amount, window, margin, cost, cap
local THOUSAND = 1000 -- ratios are whole thousandths

-- What the exchange sees are arrivals. How much later than another a call may arrive is measured by the workers; the
-- largest measure of this span and the last one counts for all, as one worker's late call lands among all others'.
local SPREAD_SPAN = 30000000
-- The largest part of a window that is given away for it.
local MARGIN_PART = 0.2

-- A bucket whose exchange said "too many" holds less than its table says: each time so much less, down to a floor, and
-- a little more again every minute.
local LESS, FLOOR, MORE_A_MINUTE = 900, 300, 10
-- After a pause a bucket starts with this part of itself, and is whole again after four windows or a minute.
local RESTART = 500
local RAMP_WINDOWS, RAMP_LEAST, RAMP_MOST = 4, 1000000, 60000000
-- What strangers on our address may take from what we count on. They are noise below a hundredth of the bucket: calls
-- that overtake each other look like strangers too.
local STRANGERS_PART, NOISE_PART = 0.5, 0.01
-- A pause without a length of the exchange's own is doubled when the next call after it meets the limit again.
local DOUBLINGS, LONGEST_GUESS = 6, 3600000000
local PAUSE_KEPT = 60000000

-- What is set aside for workers that are away, and what that leaves of an amount: shares.lua.
local parts_away, left_of

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

-- A pause is `<until>:<doublings>:<reason>`, and is kept for a while after its end; the longest of several counts.
local function longest(pauses, from, to)
  local till = 0
  for number = from, to do
    if pauses[number] then
      till = math.max(till, tonumber(string.match(pauses[number], '^%d+')))
    end
  end
  return till
end

-- `<span>:<largest in it>:<largest in the last one>:<until when some worker has not measured enough>`. Returns how far
-- calls may spread, and whether that is not known yet. `mine` is below zero where the caller does not know.
local function spread(key, found, mine, now)
  local span, largest, last, unknown = string.match(found or '', '^(%d+):(%d+):(%d+):(%d+)$')
  span, largest = tonumber(span or 0), tonumber(largest or 0)
  last, unknown = tonumber(last or 0), tonumber(unknown or 0)
  local this = math.floor(now / SPREAD_SPAN)
  if span ~= this then
    last = span == this - 1 and largest or 0
    span, largest = this, 0
  end
  largest = math.max(largest, mine)
  if mine < 0 and unknown < now + SPREAD_SPAN / 2 then
    unknown = now + SPREAD_SPAN
  end
  local value = table.concat({ whole(span), whole(largest), whole(last), whole(unknown) }, ':')
  if value ~= found then
    redis.call('SET', key, value, 'PX', whole(3 * SPREAD_SPAN / 1000))
  end
  return math.max(largest, last), unknown > now or math.max(largest, last) == 0
end

-- `<ratio>:<since>:<span>:<strangers in it>:<strangers in the last one>`: what was learned of a bucket beside its table.
local function learned(found, window, now)
  if not found then
    return { ratio = THOUSAND, at = 0, span = math.floor(now / window), most = 0, last = 0, now = THOUSAND }
  end
  local ratio, at, span, most, last = string.match(found, '^(%d+):(%d+):(%d+):(%d+):(%d+)$')
  local a = {
    ratio = tonumber(ratio),
    at = tonumber(at),
    span = math.floor(now / window),
    most = tonumber(most),
    last = tonumber(last),
  }
  if tonumber(span) ~= a.span then
    a.last = tonumber(span) == a.span - 1 and a.most or 0
    a.most = 0
  end
  a.now = math.min(THOUSAND, a.ratio + math.floor((now - a.at) * MORE_A_MINUTE / 60000000))
  return a
end

local function learn(key, a, window, now)
  local minutes = math.ceil((THOUSAND - a.ratio) / MORE_A_MINUTE)
  local value = table.concat({ whole(a.ratio), whole(a.at), whole(a.span), whole(a.most), whole(a.last) }, ':')
  redis.call('SET', key, value)
  expire(key, math.max(a.at + minutes * 60000000, now + 2 * window))
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

-- What was spent up to and with `at`.
local function upto(key, at, length)
  local low, high = -1, length
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if tonumber(redis.call('LINDEX', key, 2 * middle)) <= at then
      low = middle
    else
      high = middle
    end
  end
  return low < 0 and 0 or spent(key, low)
end

-- The time of the first grant with at least `sum` spent; the last grant always has. Looked for where it stands if all
-- cost the same.
local function first(b, sum)
  local length = redis.call('LLEN', b.key) / 2
  local high = math.max(0, math.min(length - 1, length - 1 - math.floor((b.total - sum) / math.max(b.cost, 1))))
  local from = math.max(high - 1, 0)
  local near = redis.call('LRANGE', b.key, 2 * from, 2 * high + 1)
  local low, step = high - 1, 1
  if tonumber(near[#near]) >= sum then
    if low < 0 or tonumber(near[2]) < sum then
      return tonumber(near[#near - 1])
    end
    high = low
    while low >= 0 and spent(b.key, low) >= sum do
      high, low, step = low, low - step, step * 2
    end
    low = math.max(low, -1)
  else
    low, high = high, high + 1
    while high < length and spent(b.key, high) < sum do
      low, high, step = high, high + step, step * 2
    end
    high = math.min(high, length - 1)
  end
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if spent(b.key, middle) >= sum then
      high = middle
    else
      low = middle
    end
  end
  return tonumber(redis.call('LINDEX', b.key, 2 * high))
end

-- A call that costs more than is left of the amount would never fit: then the window is longer by as much.
function rolling.shrink(b)
  b.amount = math.max(b.amount - math.min(math.max(b.learned.most, b.learned.last), b.full), math.ceil(b.full / 4))
  local least = math.min(b.cost, b.full)
  if b.amount < least then
    b.window = math.ceil(b.window * least / b.amount)
    b.amount = least
  end
end

function rolling.read(b)
  local tail = redis.call('LRANGE', b.key, -2, -1)
  b.last, b.total = tonumber(tail[1] or 0), tonumber(tail[2] or 0)
  local leave = b.total + b.cost - b.cap
  if leave > 0 then
    b.last = math.max(b.last, first(b, leave) + b.window + b.margin)
  end
  if b.since > 0 then
    b.last = math.max(b.last, b.since + b.window + b.margin)
  end
end

function rolling.fit(_, t)
  return t
end

function rolling.take(b, t, now)
  redis.call('RPUSH', b.key, whole(t), whole(b.total + b.cost))
  b.rank = b.total + b.cost
  -- What no later call can be held up by (a live call of no cost looks for this sum, all others for more), and what no
  -- answer that is still to come is counted from. One grant comes, at most two go.
  local leave, old = b.total + b.cost - b.full, now - 2 * b.length
  if leave > 0 then
    local head, drop = redis.call('LRANGE', b.key, 0, 5), 0
    while head[2 * drop + 4] and tonumber(head[2 * drop + 2]) < leave and tonumber(head[2 * drop + 3]) <= old do
      drop = drop + 1
    end
    if drop > 0 then
      redis.call('LTRIM', b.key, 2 * drop, -1)
    end
  end
  -- A window may be up to four times as long while less is left of the bucket.
  expire(b.key, t + 4 * b.length + b.margin)
end

function rolling.used(b, now)
  local length = redis.call('LLEN', b.key) / 2
  return length == 0 and 0 or spent(b.key, length - 1) - upto(b.key, now - b.window, length)
end

-- `counted` by the exchange within the last `span` up to `at`, by when none of ours that was granted later had arrived.
function rolling.observe(b, key, counted, at, rank, span, now)
  if now - at > b.length then
    return
  end
  local length = redis.call('LLEN', b.key) / 2
  if length == 0 then
    return
  end
  local ours = math.max(upto(b.key, at, length), rank) - upto(b.key, at - span, length)
  local a = b.learned
  local strangers = math.min(math.max(0, counted - ours), math.floor(b.full * STRANGERS_PART))
  if strangers > a.most then
    a.most = strangers
    learn(key, a, b.length, now)
  end
end

function rolling.strangers(b)
  return math.max(b.learned.most, b.learned.last)
end

-- fixed: the exchange's own windows. One counter is enough, as no grant goes back behind the last.
-- What strangers took of it beside us is known from the exchange's own count; and as they go on when we have stopped,
-- what they are likely to take until the window's end is left to them: `rate` is that for a whole window, `heard` when it
-- was known.
local fixed = {}

function fixed.shrink(b)
  b.amount = math.max(b.amount, math.min(b.cost, b.full))
end

function fixed.read(b)
  local state = redis.call('HMGET', b.key, 'window', 'used', 'last', 'others', 'rate', 'heard')
  b.index, b.spent, b.last = tonumber(state[1] or -1), tonumber(state[2] or 0), tonumber(state[3] or 0)
  b.others, b.rate, b.heard = tonumber(state[4] or 0), tonumber(state[5] or 0), tonumber(state[6] or 0)
  if b.heard < b.at - 2 * b.window then
    b.rate = 0
  end
  local forgotten = math.floor((b.since + b.offset) / b.window)
  if b.since > 0 and forgotten >= b.index then
    b.index, b.spent, b.others = forgotten, b.full, 0
  end
end

-- What strangers are still to take in a window.
function fixed.expected(b, index)
  if b.rate == 0 then
    return 0
  end
  local starts = index * b.window - b.offset
  local left = math.max(0, starts + b.window - math.max(b.heard, starts))
  return math.min(math.floor(b.full * STRANGERS_PART), math.ceil(b.rate * 1.1 * left / b.window))
end

function fixed.holds(b, index)
  local counted = index == b.index and b.spent + b.others or 0
  return counted == 0 or counted + fixed.expected(b, index) + b.cost <= b.cap
end

function fixed.fit(b, t)
  local index = math.max(math.floor((t + b.offset) / b.window), b.index)
  if t > (index + 1) * b.window - b.offset - b.margin or not fixed.holds(b, index) then
    index = index + 1
  end
  return math.max(t, index * b.window - b.offset + b.margin)
end

function fixed.write(b)
  redis.call(
    'HSET', b.key, 'window', whole(b.index), 'used', whole(b.spent), 'last', whole(b.last),
    'others', whole(b.others), 'rate', whole(b.rate), 'heard', whole(b.heard)
  )
  local ends = math.max((b.index + 1) * b.window - b.offset, b.last)
  expire(b.key, math.max(ends, b.rate > 0 and b.heard + 2 * b.window or 0) + b.margin)
end

function fixed.take(b, t)
  local index = math.floor((t + b.offset) / b.window)
  if index ~= b.index then
    b.index, b.spent, b.others = index, 0, 0
  end
  b.spent, b.last = b.spent + b.cost, t
  b.rank = b.spent
  fixed.write(b)
end

function fixed.used(b, now)
  fixed.read(b)
  local index = math.floor((now + b.offset) / b.window)
  return b.index < index and 0 or b.index > index and b.amount or b.spent + b.others
end

-- Only a call that was granted in the window it was answered in says something about that window.
function fixed.observe(b, _, counted, at, rank, _, now)
  local index = math.floor((now + b.offset) / b.window)
  if math.floor((at + b.offset) / b.window) ~= index then
    return
  end
  fixed.read(b)
  if b.index < index then
    b.index, b.spent, b.others = index, rank, 0
  end
  local strangers = math.max(0, counted - rank)
  if b.index == index then
    b.others = math.max(b.others, strangers)
    strangers = b.others
  end
  local starts = index * b.window - b.offset
  local gone = now - starts
  local rate = strangers > b.full * NOISE_PART and math.ceil(strangers * b.window / math.max(gone, b.window / 20)) or 0
  if rate >= b.rate then
    b.rate, b.heard = rate, now
  elseif gone >= b.window / 10 then
    b.rate = b.rate - math.floor((b.rate - rate) * math.min(1, (now - b.heard) / b.window))
    b.heard = now
  end
  fixed.write(b)
end

function fixed.strangers(b)
  return math.max(b.others, b.rate)
end

-- decaying: a level that falls by amount/window and must stay under amount, kept as the time at which it reaches zero.
-- paced is the same, but a cost above the amount is let in at level zero and leaves a debt.
local decaying = {}

function decaying.shrink(b)
  b.amount = math.max(b.amount, 1)
end

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
  b.rank = 0
end

function decaying.used(b, now)
  local empty = tonumber(redis.call('HGET', b.key, 'empty') or 0)
  return math.max(0, empty - now) * b.amount / b.window
end

function decaying.observe() end

function decaying.strangers()
  return 0
end

local KINDS = { rolling = rolling, fixed = fixed, decaying = decaying, paced = decaying }

-- A bucket as its table has it, less what was learned, and what it is still short of after a pause that ended at
-- `paused`; `at` is the earliest that anything can be granted.
local function bucket(number, from, offset, since, known, at, paused, away)
  local b = {
    key = KEYS[number],
    kind = KINDS[ARGV[from]],
    full = left_of(tonumber(ARGV[from + 1]), away),
    window = tonumber(ARGV[from + 2]),
    margin = tonumber(ARGV[from + 3]),
    cost = tonumber(ARGV[from + 4]),
    cap = tonumber(ARGV[from + 5]),
    offset = offset,
    since = since,
    at = at,
  }
  b.length, b.cap = b.window, math.min(b.cap, b.full)
  b.learned = learned(known, b.length, at)
  local ratio = b.learned.now
  if paused > 0 then
    local ramp = math.max(RAMP_LEAST, math.min(RAMP_WINDOWS * b.length, RAMP_MOST))
    local restart = RESTART + math.floor((THOUSAND - RESTART) * math.max(0, at - paused) / ramp)
    ratio = math.floor(ratio * math.min(THOUSAND, restart) / THOUSAND)
  end
  b.amount = math.floor(b.full * math.max(FLOOR, ratio) / THOUSAND)
  b.kind.shrink(b)
  if b.amount < b.full then
    b.cap = math.max(math.floor(b.cap * b.amount / b.full), math.min(b.cost, b.amount))
  end
  return b
end

-- A table's own margin holds until calls were measured. Fixed windows keep it always, as it also stands for the error
-- in the exchange's clock; a bucket without one needs none.
local function margin(b, far, unknown)
  if b.margin == 0 then
    return 0
  end
  local measured = math.min(far, math.floor(b.length * MARGIN_PART))
  return (unknown or b.kind == fixed) and math.max(b.margin, measured) or measured
end

local run = {}

-- KEYS: buckets, clock, epoch, spread, away, members, pauses, what was learned of each bucket. ARGV: reserve, number of buckets, longest
-- wait, the epoch the caller knows, one to begin, how far ahead instants are handed out, how soon the caller can be ready
-- to send, how far its calls spread, then six a bucket.
-- Returns {1 if granted, delay, instant, 1 if a pause is why not, epoch, how late the call may arrive or 0 for any, which
-- bucket had room last or 0 for no wait, then what each bucket has spent}.
function run.reserve()
  local now, count, limit = clock(), tonumber(ARGV[2]), tonumber(ARGV[3])
  local shared = redis.call('MGET', unpack(KEYS, count + 1))
  local known = #shared - count
  local offset, pause = tonumber(shared[1] or 0), longest(shared, 6, known)
  local id, since = epoch(shared[2], ARGV[4], ARGV[5], now, tonumber(ARGV[6]))
  redis.call('SET', KEYS[count + 2], id .. ':' .. whole(since), 'EX', 90000)
  local lead = tonumber(ARGV[7])
  local far, unknown = spread(KEYS[count + 3], shared[3], tonumber(ARGV[8]), now)
  local away = parts_away(shared[4], KEYS[count + 4], KEYS[count + 5], now)
  if away then
    limit = math.min(limit, HORIZON - lead)
  end
  local t = math.max(now + lead, pause)
  local buckets = {}
  for number = 1, count do
    local b = bucket(number, 9 + (number - 1) * FIELDS, offset, since, shared[known + number], t, pause, away)
    if b.cost > b.full and b.full < tonumber(ARGV[9 + (number - 1) * FIELDS + 1]) then
      return { 0, 1000000, now + 1000000, 0, id, 0, number } -- Not before those who are away are back.
    end
    b.margin = margin(b, far, unknown)
    buckets[number] = b
  end
  local held_by = 0
  for number, b in ipairs(buckets) do
    b.kind.read(b)
    if b.last > t then
      t, held_by = b.last, number
    end
  end
  -- Fixed windows push each other on, past one another's guards, until one instant suits them all.
  local fits, rounds = false, 0
  while not fits and rounds < 64 do
    local before = t
    for number, b in ipairs(buckets) do
      local at = b.kind.fit(b, t)
      if at > t then
        t, held_by = at, number
      end
    end
    fits, rounds = t == before, rounds + 1
  end
  if t - now > limit + lead or not fits then
    return { 0, t - now, t, pause - now > limit + lead and 1 or 0, id, 0, held_by }
  end
  local answer, least = { 1, t - now, t, 0, id, 0, held_by }, math.huge
  for _, b in ipairs(buckets) do
    b.kind.take(b, t, now)
    answer[#answer + 1] = b.rank
    if b.kind == fixed then
      least = math.min(least, (b.index + 1) * b.window - b.offset - t)
    elseif b.margin > 0 then
      least = math.min(least, b.margin)
    end
  end
  answer[6] = least < math.huge and least or 0
  return answer
end

-- KEYS: pauses. ARGV: paused. Returns how long they still hold.
function run.paused()
  return math.max(0, longest(redis.call('MGET', unpack(KEYS)), 1, #KEYS) - clock())
end

-- KEYS: pauses to set. ARGV: pause, microseconds, reason, 1 if the exchange itself named them, when the call that met
-- the limit was granted. Returns how long the pauses hold now; none is ever made shorter. A call that was out before the
-- pause tells nothing new: only one that was granted after it makes the next one longer.
function run.pause()
  local now, length, at, holds = clock(), tonumber(ARGV[2]), tonumber(ARGV[5]), 0
  for _, key in ipairs(KEYS) do
    local found = redis.call('GET', key)
    local till, doublings = string.match(found or '', '^(%d+):(%d+):')
    till, doublings = tonumber(till or 0), tonumber(doublings or 0)
    local mine = length
    if ARGV[4] == '0' then
      if till > 0 and at >= till then
        doublings = math.min(doublings + 1, DOUBLINGS)
      end
      mine = math.max(length, math.min(length * 2 ^ doublings, LONGEST_GUESS))
    end
    if now + mine > till then
      till = now + mine
      redis.call('SET', key, whole(till) .. ':' .. whole(doublings) .. ':' .. ARGV[3])
      expire(key, till + math.max(PAUSE_KEPT, math.min(2 * mine, LONGEST_GUESS)))
    end
    holds = math.max(holds, till - now)
  end
  return holds
end

-- KEYS: a bucket, clock, what was learned of it. ARGV: observe, what the exchange has counted, by when our calls that it
-- counted were granted, what the bucket had spent with the call, within which time, then the bucket's six.
function run.observe()
  local now = clock()
  local b = bucket(1, 6, offset_of(KEYS[2]), 0, redis.call('GET', KEYS[3]), now, 0)
  b.kind.observe(b, KEYS[3], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), now)
end

-- KEYS: buckets, clock, what was learned of each. ARGV: limited, number of buckets, when the call was granted that met a
-- limit, then six a bucket. The fullest bucket holds less from now on, once for all calls that were out already; not
-- where strangers explain it. Returns {which, what part it holds} or nothing.
function run.limited()
  local now, count, at = clock(), tonumber(ARGV[2]), tonumber(ARGV[3])
  local offset, which, fullest, part = offset_of(KEYS[count + 1]), 0, nil, -1
  for number = 1, count do
    local known = redis.call('GET', KEYS[count + 1 + number])
    local b = bucket(number, 4 + (number - 1) * FIELDS, offset, 0, known, now, 0)
    local used = b.kind.used(b, now) / b.amount
    if used > part then
      which, fullest, part = number, b, used
    end
  end
  local a = fullest.learned
  if at <= a.at or fullest.kind.strangers(fullest) > fullest.full * NOISE_PART then
    return {}
  end
  a.ratio, a.at = math.max(FLOOR, math.floor(a.now * LESS / THOUSAND)), now
  learn(KEYS[count + 1 + which], a, fullest.length, now)
  return { which, a.ratio }
end

-- KEYS: clock. ARGV: clock, how far the exchange's clock is ahead, for how long to believe it.
function run.clock()
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end

-- KEYS: buckets, clock, what was learned of each, their pauses. ARGV: usage, number of buckets, nothing, then six a
-- bucket. Returns three a bucket: how full it is and what part of its table's amount it holds, in thousandths, and how
-- long its own pause still holds.
function run.usage()
  local now, count, used = clock(), tonumber(ARGV[2]), {}
  if count == 0 then
    return used
  end
  local shared = redis.call('MGET', unpack(KEYS, count + 1))
  for number = 1, count do
    local b = bucket(number, 4 + (number - 1) * FIELDS, tonumber(shared[1] or 0), 0, shared[1 + number], now, 0)
    used[#used + 1] = math.floor(math.min(b.kind.used(b, now) / b.amount, 1) * THOUSAND)
    used[#used + 1] = math.max(FLOOR, b.learned.now)
    used[#used + 1] = math.max(0, longest(shared, 1 + count + number, 1 + count + number) - now)
  end
  return used
end
