-- One lane's budget: every bucket of a call in one atomic step, by Redis's own clock.
--
-- Times are whole microseconds, costs whole thousandths: both stay exact in Lua's doubles below 2^53. Grants of a
-- bucket never go back in time: whoever asked first is first, and a heavy call can't be overtaken for ever. A call is
-- planned on all its buckets before anything is written, so a refusal leaves no trace. Every key expires when what it
-- says can no longer hold anyone up.
--
-- `clock()`, microseconds since 1970, is that of clock.lua; `KEYS` and `ARGV` are defined by the loader.

-- A call's buckets are the last argument, as doubles: kind, amount, window, margin, cost, cap of each. To read a number
-- from text takes Redis six times as long.
local BUCKET, BYTES = '<dddddd', 48
local KINDS = { rolling, fixed, decaying, decaying } -- the last is `paced`

local function buckets()
  return #ARGV[#ARGV] / BYTES
end

-- What the exchange sees are arrivals. How much later than another a call may arrive is measured by the workers; the
-- largest measure of this span and the last one counts for all, as one worker's late call lands among all others'.
local SPREAD_SPAN = 10000000
-- The largest part of a window that is given away for it.
local MARGIN_PART = 0.2
-- How late a call may leave, as a part of its window. Its grant is moved then: see turns.lua.
local LATE_PART = 0.1

-- After a pause a bucket starts with this part of itself, and is whole again after four windows or a minute.
local RESTART = 500
local RAMP_WINDOWS, RAMP_LEAST, RAMP_MOST = 4, 1000000, 60000000
-- A pause without a length of the exchange's own is doubled when the next call after it meets the limit again.
local DOUBLINGS, LONGEST_GUESS = 6, 3600000000
local PAUSE_KEPT = 60000000

-- What is set aside for workers that are away, and what that leaves of an amount: shares.lua.
local parts_away, left_of

-- `<ahead>:<error>`: how far the exchange's clock is ahead of Redis's, and by how much that may be wrong.
local function offset_in(found)
  local ahead, wrong = string.match(found or '', '^(-?%d+):(%d+)$')
  return tonumber(ahead or 0), tonumber(wrong or 0)
end

local function offset_of(key)
  return (offset_in(redis.call('GET', key)))
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
  if mine >= 0 and mine <= largest then -- it says nothing new
    return math.max(largest, last), unknown > now
  end
  largest = math.max(largest, mine)
  if mine < 0 and unknown < now + SPREAD_SPAN / 2 then
    unknown = now + SPREAD_SPAN
  end
  local value = table.concat({ whole(span), whole(largest), whole(last), whole(unknown) }, ':')
  if value ~= found then
    redis.call('SET', key, value, 'PX', whole((3 * SPREAD_SPAN + KEPT) / 1000))
  end
  return math.max(largest, last), unknown > now or math.max(largest, last) == 0
end

-- What Redis remembers has an epoch, `<id>:<since>`. A caller that knows another one than we find has seen grants that
-- are forgotten now (Redis was emptied): then every bucket counts as full at `since`, the last instant that was handed
-- out before. `?` says that Redis was restarted and may remember only part.
-- It is kept by who shares the scope (shares.lua), and else for a day.
local function epoch(key, found, known, new, now, limit)
  local id, since = string.match(found or '', '^(%x+):(%d+)$')
  since = tonumber(since or 0)
  if known == '?' or known ~= '' and known ~= id and since == 0 then
    since = now + limit
  elseif id then
    return id, since
  end
  redis.call('SET', key, (id or new) .. ':' .. whole(since), 'EX', 90000)
  return id or new, since
end

-- A bucket as its table has it, less what was learned, and what it is still short of after a pause that ended at
-- `paused`; `at` is the earliest that anything can be granted.
local function bucket(number, offset, since, known, at, paused, away)
  local kind, amount, window, margin, cost, cap = struct.unpack(BUCKET, ARGV[#ARGV], BYTES * (number - 1) + 1)
  local full = left_of(amount, away)
  local b = {
    key = KEYS[number],
    kind = KINDS[kind],
    table = amount,
    full = full,
    amount = full,
    window = window,
    length = window,
    margin = margin,
    cost = cost,
    cap = math.min(cap, full),
    learned = learned(known, window, at),
    offset = offset,
    since = since,
    at = at,
    rank = 0,
  }
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

-- A table's own margin holds until calls were measured. Fixed windows keep it always, and `wrong`, as their ends are known
-- no better than the exchange's clock; a bucket without one needs none.
local function margin(b, far, unknown, wrong)
  if b.margin == 0 then
    return 0
  end
  local most = math.floor(b.length * MARGIN_PART)
  if b.kind == fixed then
    return math.max(b.margin, math.min(far + wrong, most))
  end
  local measured = math.min(far, most)
  return unknown and math.max(b.margin, measured) or measured
end

local run = {}

-- What a call meets: its buckets as they are now, what the scope's workers share, and when it can be sent at the earliest.
-- Who made a reservation before knows no epoch and tells no horizon: what it finds is what Redis remembers.
local function planned(now, lead, mine, horizon)
  local count, since = buckets(), 0
  local shared = redis.call('MGET', unpack(KEYS, count + 1))
  local known = #shared - count
  local offset, wrong = offset_in(shared[1])
  local pause = longest(shared, 6, known)
  local plan = { pause = pause, at = math.max(now + lead, pause), buckets = {} }
  if not horizon then
    plan.id = string.match(shared[2] or '', '^%x+') or ''
  else
    plan.id, since = epoch(KEYS[count + 2], shared[2], ARGV[3], ARGV[4], now, horizon)
    since = math.max(since, frame.lost)
  end
  local far, unknown = spread(KEYS[count + 3], shared[3], mine, now)
  plan.away = parts_away(shared[4], KEYS[count + 4], KEYS[count + 5], now)
  for number = 1, count do
    local b = bucket(number, offset, since, shared[known + number], plan.at, pause, plan.away)
    if b.cost > b.full and b.full < b.table then
      plan.short = number
    end
    b.margin, b.now = margin(b, far, unknown, wrong), now
    plan.buckets[number] = b
  end
  return plan
end

-- The answer to who may send at `t`: {1, delay, instant, 1 if it has to be looked at again, epoch, which bucket had room last or 0 for no wait, how late
-- the call may arrive without a word (below zero: it has to be heard of in any case), how late it may leave, then what
-- each bucket has spent}; 0 for any.
local function granted(plan, t, now, held_by)
  local least, spare, short = math.huge, math.huge, false
  local answer = { 1, t - now, t, 0, plan.id, held_by, 0, 0 }
  for _, b in ipairs(plan.buckets) do
    answer[#answer + 1] = b.rank
    answer[4] = b.unsure and 1 or answer[4]
    if b.kind == fixed then
      local left = (math.floor((t + b.offset) / b.window) + 1) * b.window - b.offset - t
      least = math.min(least, left)
      spare = math.min(spare, math.max(left - b.margin, math.floor(left / 4)))
    elseif b.margin > 0 then
      least = math.min(least, b.margin, LEAST_MARGIN)
      short = short or is_short(b)
      spare = math.min(spare, math.max(b.margin, math.floor(b.length * LATE_PART)))
    end
  end
  answer[7] = least == math.huge and 0 or short and -least or least
  answer[8] = spare < math.huge and spare or 0
  return answer
end

-- KEYS: buckets, clock, epoch, spread, away, members, pauses, what was learned of each bucket. ARGV: reserve, four
-- doubles (longest wait, how soon the caller can be ready to send, how far its calls spread, how far ahead instants are
-- handed out), the epoch the caller knows, one to begin, buckets.
-- Returns as `granted` does, or {0, delay, instant, 1 if a pause is why not, epoch, which bucket had no room}.
function run.reserve()
  local now, limit, lead, far, horizon = clock(), struct.unpack('<dddd', ARGV[2])
  local plan = planned(now, lead, far, horizon)
  local t, held_by = plan.at, 0
  if plan.short then
    return { 0, 1000000, now + 1000000, 0, plan.id, plan.short } -- Not before those who are away are back.
  end
  if plan.away then
    limit = math.min(limit, HORIZON - lead)
  end
  for number, b in ipairs(plan.buckets) do
    b.kind.read(b)
    if b.last > t then
      t, held_by = b.last, number
    end
  end
  -- Fixed windows push each other on, past one another's guards, until one instant suits them all.
  local fits, rounds = false, 0
  while not fits and rounds < 64 do
    local before = t
    for number, b in ipairs(plan.buckets) do
      local at = b.kind.fit(b, t)
      if at > t then
        t, held_by = at, number
      end
    end
    fits, rounds = t == before, rounds + 1
  end
  if t - now > limit + lead or not fits then
    return { 0, t - now, t, plan.pause - now > limit + lead and 1 or 0, plan.id, held_by }
  end
  for _, b in ipairs(plan.buckets) do
    b.kind.take(b, t, now)
  end
  return granted(plan, t, now, held_by)
end

-- An operator lifts a pause by ending it now, with this reason in its place (schemas/operator/pauses.py).
local function lifted(found)
  return tonumber(string.match(found or '', '^(%d+):%d+:lifted$') or 0)
end

-- KEYS: pauses. ARGV: paused. Returns how long they still hold, and when the last of them was lifted: 0 where none was.
function run.paused()
  local found, last = redis.call('MGET', unpack(KEYS)), 0
  for number = 1, #KEYS do
    last = math.max(last, lifted(found[number]))
  end
  return { math.max(0, longest(found, 1, #KEYS) - clock()), last }
end

-- KEYS: pauses to set. ARGV: pause, microseconds, reason, 1 if the exchange itself named them, when the call that met
-- the limit was granted. Returns how long the pauses hold now; none is ever made shorter, and one that was lifted is not
-- told again. A call that was out before the pause tells nothing new: only one that was granted after it makes the next
-- one longer.
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
    if now + mine > till and not (ARGV[3] == 'told again' and lifted(found) > 0) then
      till = now + mine
      redis.call('SET', key, whole(till) .. ':' .. whole(doublings) .. ':' .. ARGV[3])
      expire(key, till + math.max(PAUSE_KEPT, math.min(2 * mine, LONGEST_GUESS)))
    end
    holds = math.max(holds, till - now)
  end
  return holds
end

-- KEYS: a bucket, clock, what was learned of it. ARGV: observe, what the exchange has counted, by when our calls that it
-- counted were granted, what the bucket had spent with the call, within which time, the bucket.
function run.observe()
  local now = clock()
  local b = bucket(1, offset_of(KEYS[2]), 0, redis.call('GET', KEYS[3]), now, 0)
  b.kind.observe(b, KEYS[3], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), now)
end

-- KEYS: buckets, clock, what was learned of each. ARGV: limited, when the call was granted that met a limit, buckets.
-- The fullest bucket holds less from now on, once for all calls that were out already; not where strangers explain it.
-- Returns {which, what part it holds} or nothing.
function run.limited()
  local now, count, at = clock(), buckets(), tonumber(ARGV[2])
  local offset, which, fullest, part = offset_of(KEYS[count + 1]), 0, nil, -1
  for number = 1, count do
    local known = redis.call('GET', KEYS[count + 1 + number])
    local b = bucket(number, offset, 0, known, now, 0)
    local used = b.kind.used(b, now) / b.amount
    if used > part then
      which, fullest, part = number, b, used
    end
  end
  local a = fullest.learned
  if at <= a.at or fullest.kind.strangers(fullest) > fullest.full * NOISE_PART then
    return {}
  end
  a.ratio, a.at, a.times = math.max(FLOOR, math.floor(a.now * LESS / THOUSAND)), now, a.times + 1
  learn(KEYS[count + 1 + which], a, fullest.length, now)
  return { which, a.ratio }
end

-- KEYS: a bucket, clock, what was learned of it. ARGV: remember, the part that it held when the caller last saw it, and
-- when that was, the bucket. It was forgotten, and is known again. Returns what part it holds now.
function run.remember()
  local now = clock()
  local b = bucket(1, offset_of(KEYS[2]), 0, redis.call('GET', KEYS[3]), now, 0)
  local a = b.learned
  local held = tonumber(ARGV[2]) + math.floor((now - tonumber(ARGV[3])) * MORE_A_MINUTE / MINUTE)
  if held < a.now then
    a.ratio, a.at, a.times, a.now = held, now, math.max(a.times, 1), held
    learn(KEYS[3], a, b.length, now)
  end
  return a.now
end

-- KEYS: the fastest trips of this time, and of the one before. ARGV: trips, when the former are forgotten (seconds since
-- 1970), then pairs of microseconds and the endpoint of a trip. Returns both: pairs of an endpoint and microseconds.
function run.trips()
  for number = 3, #ARGV, 2 do
    redis.call('ZADD', KEYS[1], 'LT', ARGV[number], ARGV[number + 1])
    redis.call('EXPIREAT', KEYS[1], ARGV[2])
  end
  local both = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
  for _, one in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')) do
    both[#both + 1] = one
  end
  return both
end

-- KEYS: clock. ARGV: clock, how far the exchange's clock is ahead and how wrong that may be, for how long to believe it.
function run.clock()
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end

-- KEYS: buckets, clock, what was learned of each, their pauses. ARGV: usage, buckets. Returns the time, then four a
-- bucket: how full it is and what part of its table's amount it holds, in thousandths, how often it was lowered, and how
-- long its own pause still holds.
function run.usage()
  local now, count = clock(), buckets()
  local used = { now }
  if count == 0 then
    return used
  end
  local shared = redis.call('MGET', unpack(KEYS, count + 1))
  for number = 1, count do
    local b = bucket(number, (offset_in(shared[1])), 0, shared[1 + number], now, 0)
    used[#used + 1] = math.floor(math.min(b.kind.used(b, now) / b.amount, 1) * THOUSAND)
    used[#used + 1] = math.max(FLOOR, b.learned.now)
    used[#used + 1] = b.learned.times
    used[#used + 1] = math.max(0, longest(shared, 1 + count + number, 1 + count + number) - now)
  end
  return used
end
