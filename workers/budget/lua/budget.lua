-- One exchange's budget: every bucket of a call in one atomic step, by Redis's own clock.
--
-- Times are whole microseconds, costs whole thousandths: both stay exact in Lua's doubles below 2^53. The grants of a
-- bucket never go back in time: calls are served in the order of asking, and a heavy call can't be overtaken for ever.
-- A call is planned on all its buckets before anything is written, so a refusal leaves no trace. Every key expires once
-- what it holds can delay no call any more.
--
-- Each function of `entry` can be asked for. Its first lines name its keys, its arguments and its answer; protocol.py
-- packs and unpacks the same. `false` is what is not there. An entry without an answer returns nothing.

local entry = {}

-- After a pause a bucket starts with this part of itself, and is whole again after four windows or a minute.
local RESTART = 500
local RAMP_WINDOWS, RAMP_LEAST, RAMP_MOST = 4, 1000000, 60000000
-- The exchange sees arrivals. Workers measure how much later than another a call may arrive. The largest measure of
-- this span of time and the last one holds for all workers: one worker's late call lands among the calls of all.
local SPREAD_SPAN = 10000000
-- How late a call may leave, as a part of its window, and at most: it may not have heard of a pause. Then its grant is
-- moved: see turns.lua. A level rises at once by what is late beyond its margin, so there the margin is all.
local LATE_MOST = 1000000
-- A call that needs the part of a worker that is away is asked for again after this time.
local ASK_AGAIN = 1000000

local RULES = { rolling = rolling, fixed = fixed, decaying = decaying, paced = decaying }

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
-- calls may spread, and whether that is not known yet. `mine` is false where the caller has not measured enough.
local function spread(key, found, mine, now)
  local span, largest, last, unknown = string.match(found or '', '^(%d+):(%d+):(%d+):(%d+)$')
  span, largest = tonumber(span or 0), tonumber(largest or 0)
  last, unknown = tonumber(last or 0), tonumber(unknown or 0)
  local this = math.floor(now / SPREAD_SPAN)
  if span ~= this then
    last = span == this - 1 and largest or 0
    span, largest = this, 0
  end
  if mine and mine <= largest then -- it says nothing new
    return math.max(largest, last), unknown > now
  end
  if mine then
    largest = mine
  elseif unknown < now + SPREAD_SPAN / 2 then
    unknown = now + SPREAD_SPAN
  end
  local value = table.concat({ whole(span), whole(largest), whole(last), whole(unknown) }, ':')
  if value ~= found then
    redis.call('SET', key, value, 'PX', whole((3 * SPREAD_SPAN + KEPT) / 1000))
  end
  return math.max(largest, last), unknown > now or math.max(largest, last) == 0
end

local function write_epoch(key, id, since)
  redis.call('SET', key, id .. ':' .. whole(since), 'EX', DAY_AND_MORE_S)
end

-- What Redis remembers has an epoch, `<id>:<since>`. A caller that knows another one than we find has seen grants that
-- are forgotten now (Redis was emptied): then every bucket counts as full at `since`, the last instant that can have
-- been granted before. Workers that share the scope renew the key (shares.lua); otherwise it lasts for a day.
local function epoch(key, found, known, new, now, ahead)
  local id, since = string.match(found or '', '^(%x+):(%d+)$')
  since = tonumber(since or 0)
  if known ~= '' and known ~= id and since == 0 then
    since = now + ahead
  elseif id then
    return id, since
  end
  write_epoch(key, id or new, since)
  return id or new, since
end

-- The bucket at this place among the packed ones, as its table has it, less what was learned, and less what it still
-- lacks after a pause that ended at `paused`; `at` is the earliest that anything can be granted.
local function bucket(packed, number, key, offset, since, known, at, paused, away)
  local kind, amount, window, margin, cost, cap = struct.unpack(BUCKET_FORMAT, packed, BUCKET_BYTES * (number - 1) + 1)
  local full = left_of(amount, away)
  local b = {
    key = key,
    kind = RULES[KIND_NAMES[kind]],
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

-- A bucket as it is now, for entries that reserve nothing.
local function bucket_now(packed, number, key, offset, known, now)
  return bucket(packed, number, key, offset, 0, known, now, 0)
end

-- How long the fixed window lasts that an instant is in.
local function window_left(b, t)
  return (math.floor((t + b.offset) / b.window) + 1) * b.window - b.offset - t
end

-- How late a call may leave for a bucket's sake; without end where a rolling window has no margin.
local function late(b, t)
  if b.kind == fixed then
    local left = window_left(b, t)
    return math.max(left - b.margin, math.floor(left / 4))
  elseif b.kind == decaying then
    return b.margin > 0 and b.margin or math.max(LEAST_MARGIN, math.floor(SCALE * b.window / b.table * LATE_PART))
  end
  return b.margin > 0 and math.max(b.margin, math.floor(b.length * LATE_PART)) or math.huge
end

-- A table's own margin holds until calls were measured. Fixed windows always keep it, and `wrong`: their ends are known
-- no better than the exchange's clock. A bucket without a margin needs none.
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

-- What a call meets: its buckets as they are now, what the scope's workers share, and when it can leave at the
-- earliest. `asked` names the call: `keys` (below), `packed`, its buckets; `lead`, how long the caller needs to be
-- ready; `far`, how far its calls spread, or false. A new reservation also has `known`, the epoch it knows, `new`, one
-- to begin, and `ahead`, how far ahead it reserves; one that is looked at again goes by what Redis remembers.
local function planned(asked, now)
  local keys, count = asked.keys, #asked.packed / BUCKET_BYTES
  -- clock, epoch, spread, away, members, the pauses, what was learned of each bucket, the buckets
  local epoch_key, spread_key, away_key, members_key, last = keys[2], keys[3], keys[4], keys[5], #keys - count
  local function key_of(number) return keys[last + number] end

  local found = redis.call('MGET', unpack(keys, 1, last))
  local known = last - count
  local offset, wrong = offset_in(found[1])
  local pause, since = longest(found, 6, known), 0
  local plan = { pause = pause, at = math.max(now + asked.lead, pause), buckets = {}, epoch = false }
  if asked.known then
    plan.epoch, since = epoch(epoch_key, found[2], asked.known, asked.new, now, asked.ahead)
    since = math.max(since, frame.lost)
  end
  local far, unknown = spread(spread_key, found[3], asked.far, now)
  plan.away = parts_away(found[4], away_key, members_key, now)
  for number = 1, count do
    local b = bucket(
      asked.packed, number, key_of(number), offset, since, found[known + number], plan.at, pause, plan.away
    )
    if b.cost > b.full and b.full < b.table then
      plan.short = number
    end
    b.margin, b.now = margin(b, far, unknown, wrong), now
    plan.buckets[number] = b
  end
  return plan
end

-- The first instant from `t` on that suits all of these buckets, each asked by `fit`; which of them had room last, or
-- false where none made the call wait; and whether there is one. Fixed windows push each other on, past one another's
-- guards, so they are asked again until nothing moves.
local function fitting(buckets, t, fit)
  local held_by, rounds = false, 0
  while rounds < 64 do
    local before = t
    for number, b in pairs(buckets) do
      local at = b.kind[fit](b, t)
      if at > t then
        t, held_by = at, number
      end
    end
    if t == before then
      return t, held_by, true
    end
    rounds = rounds + 1
  end
  return t, held_by, false
end

-- The answer to a call that may be sent at `t`: 'granted', the delay, the instant, which bucket had room last or false
-- for no wait, the epoch or false, 1 if the call has to look again before it leaves, 1 if its arrival has to be
-- reported in any case, how late it may arrive without a word or false for any time, how late it may leave or false for
-- any time, then what each bucket has spent.
local function granted(plan, t, now, held_by)
  local least, spare, short, unsure = math.huge, math.huge, 0, 0
  local answer = { 'granted', t - now, t, held_by, plan.epoch, 0, 0, false, false }
  for _, b in ipairs(plan.buckets) do
    answer[#answer + 1] = b.rank
    unsure = b.unsure and 1 or unsure
    spare = math.min(spare, late(b, t))
    if b.kind == fixed then
      least = math.min(least, window_left(b, t))
    elseif b.margin > 0 then
      -- A level keeps its whole margin free: nothing is lost by what comes within it, and each report would be.
      least = math.min(least, b.margin, b.kind == rolling and LEAST_MARGIN or math.huge)
      short = is_short(b) and 1 or short
    end
  end
  answer[6], answer[7] = unsure, short
  answer[8] = least < math.huge and least
  answer[9] = spare < math.huge and math.min(spare, LATE_MOST)
  return answer
end

-- The answer to a call that would have room at `t` only: 'paused' where that is why, otherwise 'refused'; the delay,
-- the instant, which bucket had no room or false, the epoch or false.
local function refused(plan, t, now, held_by, latest)
  return { plan.pause > latest and 'paused' or 'refused', t - now, t, held_by, plan.epoch }
end

-- keys: those of a call (`planned`).
-- args: five doubles (the longest wait, how long the caller needs to be ready, how far its calls spread, 1 if it has
--   measured that, how far ahead it reserves), the epoch it knows or '', one to begin, the buckets.
-- answer: as `granted`; or as `refused`, then how room comes (`rolling.rooms`) where a call that may wait lacks it in a
--   rolling window.
function entry.reserve(keys, args)
  local limit, lead, far, measured, ahead = struct.unpack('<ddddd', args[1])
  local known, new, packed = args[2], args[3], args[4]

  local now = clock()
  local asked = { keys = keys, packed = packed, lead = lead, known = known, new = new, ahead = ahead }
  asked.far = measured == 1 and far
  local plan = planned(asked, now)
  -- A Redis that was emptied does not know before the next beat of a worker whose parts are to be set aside. A bucket
  -- that is short has room when the workers that are away are back.
  if by_member and not plan.away or plan.short then
    return refused(plan, math.max(now + ASK_AGAIN, plan.pause), now, plan.short or false, now + limit + lead)
  end
  if plan.away then
    limit = math.min(limit, HORIZON - lead)
  end
  local t, held_by = plan.at, false
  for number, b in ipairs(plan.buckets) do
    b.kind.read(b)
    if b.last > t then
      t, held_by = b.last, number
    end
  end
  local at, held_later, fits = fitting(plan.buckets, t, 'fit')
  held_by = held_later or held_by
  if at - now > limit + lead or not fits then
    local answer, b = refused(plan, at, now, held_by, now + limit + lead), plan.buckets[held_by]
    if answer[1] == 'refused' and b and b.kind == rolling and limit > 0 then
      for _, number in ipairs(rolling.rooms(b)) do
        answer[#answer + 1] = number
      end
    end
    return answer
  end
  for _, b in ipairs(plan.buckets) do
    b.kind.take(b, at, now)
  end
  return granted(plan, at, now, held_by)
end

-- keys: a bucket, the clock, what was learned of the bucket.
-- args: what the exchange has counted, by when our calls that it counted were granted, what the bucket had spent with
--   the call, within which time, the bucket.
function entry.observe(keys, args)
  local key, clock_key, learned_key = keys[1], keys[2], keys[3]
  local counted, at, rank, span = tonumber(args[1]), tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  local packed = args[5]

  local now = clock()
  local b = bucket_now(packed, 1, key, offset_of(clock_key), redis.call('GET', learned_key), now)
  b.kind.observe(b, learned_key, counted, at, rank, span, now)
end

-- The fullest bucket holds less from now on, once for all calls that were out already; not where strangers explain it.
-- keys: the clock, then of each bucket itself and what was learned of it.
-- args: when the call was granted that met a limit, the buckets.
-- answer: which bucket and what part of its table's amount it holds, thousandths; or false.
function entry.limited(keys, args)
  local offset, at, packed = offset_of(keys[1]), tonumber(args[1]), args[2]
  local function keys_of(number) return keys[2 * number], keys[2 * number + 1] end

  local now, which, fullest, part = clock(), 0, nil, -1
  for number = 1, #packed / BUCKET_BYTES do
    local key, learned_key = keys_of(number)
    local b = bucket_now(packed, number, key, offset, redis.call('GET', learned_key), now)
    local used = b.kind.used(b, now) / b.amount
    if used > part then
      which, fullest, part = number, b, used
    end
  end
  local a = fullest.learned
  if at <= a.at or fullest.kind.strangers(fullest) > fullest.full * NOISE_PART then
    return false
  end
  a.ratio, a.at, a.times = math.max(FLOOR, math.floor(a.now * LESS / THOUSAND)), now, a.times + 1
  local _, learned_key = keys_of(which)
  learn(learned_key, a, fullest.length, now)
  return { which, a.ratio }
end

-- Restores what Redis has forgotten of a bucket.
-- keys: a bucket, the clock, what was learned of the bucket.
-- args: the part of its table's amount that it held when the caller last saw it, when that was, the bucket.
-- answer: what part it holds now.
function entry.remember(keys, args)
  local key, clock_key, learned_key = keys[1], keys[2], keys[3]
  local part, seen, packed = tonumber(args[1]), tonumber(args[2]), args[3]

  local now = clock()
  local b = bucket_now(packed, 1, key, offset_of(clock_key), redis.call('GET', learned_key), now)
  local a, held = b.learned, part + math.floor((now - seen) * MORE_A_MINUTE / MINUTE)
  if held < a.now then
    a.ratio, a.at, a.times, a.now = held, now, math.max(a.times, 1), held
    learn(learned_key, a, b.length, now)
  end
  return a.now
end

-- keys: the clock, then what was learned of each bucket, then their pauses, then the buckets, then the scope's pauses.
-- args: the buckets.
-- answer: two lists. The time, then four of each bucket: how full it is and what part of its table's amount it holds,
--   thousandths, how often it was lowered, and how long its own pause still holds. And the answer of `paused`.
function entry.usage(keys, args)
  local count, packed = #args[1] / BUCKET_BYTES, args[1]
  local function scope_pauses() return { unpack(keys, 2 + 3 * count) } end
  local found = redis.call('MGET', unpack(keys, 1, 1 + 2 * count))
  local function of(number) return keys[1 + 2 * count + number], found[1 + number], 1 + count + number end

  local now, offset = clock(), (offset_in(found[1]))
  local answer = { now }
  for number = 1, count do
    local key, known, pause = of(number)
    local b = bucket_now(packed, number, key, offset, known, now)
    answer[#answer + 1] = math.floor(math.min(b.kind.used(b, now) / b.amount, 1) * THOUSAND)
    answer[#answer + 1] = math.max(FLOOR, b.learned.now)
    answer[#answer + 1] = b.learned.times
    answer[#answer + 1] = math.max(0, longest(found, pause, pause) - now)
  end
  return { answer, entry.paused(scope_pauses()) }
end
