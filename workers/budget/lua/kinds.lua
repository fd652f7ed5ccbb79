-- Buckets with fixed windows and with a level: what each remembers, when a call fits, what strangers took of it.
-- Stands after clock.lua and before rolling.lua, which has the third kind. It uses no Redis key but a bucket's own and
-- the one of what was learned of it. What all kinds share is in budget.lua.

local THOUSAND = 1000 -- ratios are whole thousandths

-- After "too many" a bucket holds LESS thousandths of what it held, FLOOR at least, and MORE_A_MINUTE more each minute.
-- When that happens again within a day after it was whole, it rises half as fast: a limit that is lower than its table
-- says is met more and more rarely.
local LESS, FLOOR, MORE_A_MINUTE, HALVINGS = 900, 300, 10, 6
local MINUTE, REMEMBERED = 60000000, 86400000000
-- What strangers on our address may take from what we count on. They are noise below a hundredth of the bucket: calls
-- that overtake each other look like strangers too.
local STRANGERS_PART, NOISE_PART = 0.5, 0.01
-- Where a level was at zero, and nothing was granted since: longer than any window.
local SLACK_MOST = 86400000000

-- All numbers here are whole. '%.0f' would give the same text in twice the time.
local function whole(number)
  return string.format('%d', number)
end

local function expire(key, at_us)
  redis.call('PEXPIREAT', key, whole(math.ceil((at_us - frame.correction + KEPT) / 1000) + 1))
end

local function more_a_minute(a)
  return MORE_A_MINUTE / 2 ^ math.min(math.max(a.times - 1, 0), HALVINGS)
end

local function whole_again(a)
  return a.at + math.ceil((THOUSAND - a.ratio) / more_a_minute(a)) * MINUTE
end

-- `<ratio>:<since>:<how often>:<span>:<strangers in it>:<strangers in the last one>`: what was learned of a bucket
-- beside its table.
local function learned(found, window, now)
  if not found then
    return { ratio = THOUSAND, at = 0, times = 0, span = math.floor(now / window), most = 0, last = 0, now = THOUSAND }
  end
  local ratio, at, times, span, most, last = string.match(found, '^(%d+):(%d+):(%d+):(%d+):(%d+):(%d+)$')
  local a = {
    ratio = tonumber(ratio),
    at = tonumber(at),
    times = tonumber(times),
    span = math.floor(now / window),
    most = tonumber(most),
    last = tonumber(last),
  }
  if tonumber(span) ~= a.span then
    a.last = tonumber(span) == a.span - 1 and a.most or 0
    a.most = 0
  end
  a.now = math.min(THOUSAND, a.ratio + math.floor((now - a.at) * more_a_minute(a) / MINUTE))
  if now > whole_again(a) + REMEMBERED then
    a.times = 0
  end
  return a
end

local function learn(key, a, window, now)
  local value =
    table.concat({ whole(a.ratio), whole(a.at), whole(a.times), whole(a.span), whole(a.most), whole(a.last) }, ':')
  redis.call('SET', key, value)
  expire(key, math.max(a.times > 0 and whole_again(a) + REMEMBERED or 0, now + 2 * window))
end

-- fixed: the exchange's own windows. One counter is enough, as no grant goes back behind the last.
--
-- What strangers took of a window is known from the exchange's own count. They go on when we have stopped, so what they
-- are likely to take until the window's end is left to them: `rate` is that for a whole window, `heard` when it was
-- measured. With no call of ours in flight the count says exactly what they took. Otherwise there is an upper and a
-- lower bound: what is counted beside the calls that were answered, and what is counted beside all that we were
-- granted. Between the bounds strangers are taken to go on as before. `told` is the window that `counted` and
-- `answered` are of; `sure` is 1 once the rate was measured with next to nothing in flight; `eased` is when it was last
-- found to be less.
local fixed = {}

function fixed.shrink(b)
  b.amount = math.max(b.amount, math.min(b.cost, b.full))
end

-- The bucket counts in this window from now on. Of the one before it is kept what was spent, and when the last was
-- granted: after the exchange's clock was measured anew, some of that may lie in this one.
function fixed.turn(b, index)
  if index > b.index then
    b.before, b.ended = b.spent, b.last
    b.index, b.spent, b.others = index, 0, 0
  end
end

-- The exchange's clock was measured anew. What was counted by the old one belongs to the window that the last grant is
-- in by the new one, and so does what was counted before that, if any of it may. The strangers' rate is what they took
-- in as much of the window as was over by the new clock.
function fixed.follow(b, old)
  local starts = b.index * b.window - old
  local last = math.max(starts, math.min(b.last, starts + b.window - 1))
  b.index = math.floor((last + b.offset) / b.window)
  if b.before > 0 and b.ended >= b.index * b.window - b.offset then
    b.spent, b.before = b.spent + b.before, 0
  end
  local least = b.window / 20
  if math.abs(b.offset - old) > least then
    local gone = math.max((b.heard + b.offset) % b.window, least)
    b.rate = math.ceil(b.rate * math.max((b.heard + old) % b.window, least) / gone)
  end
end

function fixed.read(b)
  local state = redis.call(
    'HMGET', b.key, 'window', 'used', 'last', 'others', 'rate', 'heard', 'offset', 'before', 'ended'
  )
  b.index, b.spent, b.last = tonumber(state[1] or -1), tonumber(state[2] or 0), tonumber(state[3] or 0)
  b.others, b.rate, b.heard = tonumber(state[4] or 0), tonumber(state[5] or 0), tonumber(state[6] or 0)
  b.before, b.ended = tonumber(state[8] or 0), tonumber(state[9] or 0)
  local old = tonumber(state[7] or b.offset)
  if old ~= b.offset and b.index >= 0 then
    fixed.follow(b, old)
  end
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
    'others', whole(b.others), 'rate', whole(b.rate), 'heard', whole(b.heard),
    'offset', whole(b.offset), 'before', whole(b.before), 'ended', whole(b.ended)
  )
  -- One window longer than it counts, for the exchange's clock may be known anew by then.
  local ends = math.max((b.index + 2) * b.window - b.offset, b.last)
  expire(b.key, math.max(ends, b.rate > 0 and b.heard + 2 * b.window or 0) + b.margin)
end

function fixed.take(b, t)
  fixed.turn(b, math.floor((t + b.offset) / b.window))
  b.spent, b.last = b.spent + b.cost, t
  b.rank = b.spent
  fixed.write(b)
end

function fixed.used(b, now)
  fixed.read(b)
  local index = math.floor((now + b.offset) / b.window)
  return b.index < index and 0 or b.index > index and b.amount or b.spent + b.others
end

-- A call says something about a window only if it was granted and answered in it. `at` is the instant that it was
-- granted, and later by as much as it was late; the call's cost is the bucket's.
function fixed.observe(b, _, counted, at, rank, _, now)
  local index = math.floor((now + b.offset) / b.window)
  if math.floor((at + b.offset) / b.window) ~= index then
    return
  end
  fixed.read(b)
  if b.index < index then
    fixed.turn(b, index)
    b.spent = rank
  end
  local told = redis.call('HMGET', b.key, 'told', 'counted', 'answered', 'sure', 'eased')
  local answered, sure = b.cost, told[4] == '1' and b.heard >= now - 2 * b.window
  if tonumber(told[1]) == index then
    counted, answered = math.max(counted, tonumber(told[2])), answered + tonumber(told[3])
  end
  local spent = math.max(answered, b.index == index and b.spent or b.index == index + 1 and b.before or rank)
  local least, most = math.max(0, counted - spent), math.max(0, counted - answered)
  local starts = index * b.window - b.offset
  local gone, strangers = now - starts, most
  if sure then
    local known = b.index == index and b.others or 0
    local as_before = known + math.floor(b.rate * (now - math.max(b.heard, starts)) / b.window)
    strangers = math.max(least, math.min(as_before, most))
  end
  if b.index == index then
    b.others = strangers
  end
  local under_way, noise, least_gone = spent - answered, b.full * NOISE_PART, b.window / 20
  local certain = sure or under_way == 0 or strangers > noise
  local rate = certain and math.ceil(strangers * b.window / math.max(gone, least_gone)) or 0
  local eased = tonumber(told[5] or 0)
  if not sure or rate >= b.rate then
    b.rate = rate
  elseif strangers == most and gone >= least_gone then
    b.rate = b.rate - math.floor((b.rate - rate) * (now - math.max(eased, starts)) / b.window)
    eased = now
  end
  sure = sure or (under_way <= noise and gone >= least_gone)
  b.heard = now
  redis.call(
    'HSET', b.key, 'told', whole(index), 'counted', whole(counted), 'answered', whole(answered),
    'sure', sure and 1 or 0, 'eased', whole(eased)
  )
  fixed.write(b)
end

function fixed.hold(b, at)
  fixed.read(b)
  b.held, b.mine = at, math.floor((at + b.offset) / b.window)
  return b.index >= b.mine
end

function fixed.refit(b, t)
  local starts = b.mine * b.window - b.offset
  local spent = b.index == b.mine and b.spent or b.index == b.mine + 1 and b.before or 0
  local inside = math.max(t, starts + b.margin)
  if spent <= b.full and inside <= starts + b.window - b.margin then
    return inside
  end
  return fixed.fit(b, t) -- Too late for its window, or, by the clock as it is known now, there is too much in it.
end

function fixed.move(b, t)
  local last = math.max(b.last, t)
  if math.floor((t + b.offset) / b.window) ~= b.mine then
    fixed.drop(b)
    fixed.take(b, t)
  end
  b.last = last
  fixed.write(b)
end

-- The exchange may have counted it in the next window, or still in its own: so it counts in both.
function fixed.arrived(b, arrived)
  local index = math.floor((arrived + b.offset) / b.window)
  if index > b.mine and index >= b.index then
    fixed.turn(b, index)
    b.spent = b.spent + b.cost
    fixed.write(b)
  end
end

function fixed.drop(b)
  if b.index == b.mine then
    b.spent = math.max(0, b.spent - b.cost)
  elseif b.index == b.mine + 1 then
    b.before = math.max(0, b.before - b.cost)
  end
  fixed.write(b)
end

function fixed.strangers(b)
  return math.max(b.others, b.rate)
end

-- decaying: a level that falls by amount/window and must stay under amount, kept as the time at which it reaches zero.
-- paced is the same, but a cost above the amount is let in at level zero and leaves a debt.
--
-- Of what was granted since `busy`, mostly when the level was zero for the last time, is kept how far above zero it was
-- at least as each one after that was granted: `slack`. A call that goes back lowers the level now by no more than
-- that: without it, the level would have been zero for a while before one of the others. `chain` holds both, with the
-- `empty` and `last` that they belong to: what writes only these (give.lua) ends them.
local decaying = {}

function decaying.shrink(b)
  b.amount = math.max(b.amount, 1)
end

function decaying.read(b)
  local state = redis.call('HMGET', b.key, 'empty', 'last', 'chain')
  b.empty, b.last = tonumber(state[1] or 0), tonumber(state[2] or 0)
  b.granted = b.last
  if b.since > 0 then
    b.empty = math.max(b.empty, b.since + b.window)
  end
  local empty, last, busy, slack = string.match(state[3] or '', '^(%d+):(%d+):(%d+):(%d+)$')
  if tonumber(empty) == b.empty and tonumber(last) == b.granted then
    b.busy, b.slack = tonumber(busy), tonumber(slack)
  else
    b.busy, b.slack = math.huge, 0
  end
  b.rise, b.least = math.ceil(b.cost * b.window / b.amount), math.ceil(b.cost * b.window / b.table)
  b.room = math.floor(b.cap * b.window / b.amount) - b.margin
  b.last = math.max(b.last, decaying.free(b))
end

-- From when on there is room for one more call. One that takes all that a level holds waits the margin beyond zero.
function decaying.free(b)
  return b.empty + math.min(b.rise, b.room + b.margin) - b.room
end

function decaying.fit(_, t)
  return t
end

function decaying.write(b)
  local known = b.busy < math.huge
  local chain = known and { whole(b.empty), whole(b.granted), whole(b.busy), whole(b.slack) } or {}
  redis.call('HSET', b.key, 'empty', whole(b.empty), 'last', whole(b.granted), 'chain', table.concat(chain, ':'))
  expire(b.key, math.max(b.empty, b.granted))
end

function decaying.take(b, t)
  if t >= b.empty or b.busy == math.huge then
    b.busy, b.slack = t, SLACK_MOST
  elseif t > b.busy then
    b.slack = math.min(b.slack, b.empty - t)
  end
  b.empty, b.granted = math.max(b.empty, t) + b.rise, t
  b.rank = 0
  decaying.write(b)
end

function decaying.hold(b, at)
  decaying.read(b)
  b.held = at
  return b.empty > 0
end

-- By how much the level is lower without the call, at the least: it may have been granted when the bucket held more.
function decaying.own(b)
  if b.held == b.granted and b.busy <= b.held then
    return b.least
  end
  return b.held >= b.busy and math.min(b.least, b.slack) or 0
end

-- A call that leaves later than it was granted has room beside all that was granted meanwhile, or after that. Calls
-- that stood still together would otherwise all leave at once.
function decaying.refit(b, t)
  local free = decaying.free(b)
  if t > b.held and free - b.rise > b.held then
    return math.max(t, free - decaying.own(b))
  end
  return t
end

-- It is as if the call went back and came again at `t`. The level falls without it meanwhile, and not below zero: so it
-- is higher by no more than would have fallen.
function decaying.move(b, t)
  if t <= b.held then
    return
  end
  local own = decaying.own(b)
  local others = b.empty - own
  if t >= b.granted and t >= others then
    b.busy, b.slack = t, SLACK_MOST
  elseif t >= b.granted then
    b.slack = math.max(0, math.min(b.slack - b.rise, others - t))
  else
    b.slack = own == b.least and math.max(0, b.slack - b.rise) or 0
  end
  b.empty = math.max(t + b.rise, math.min(others + b.rise, b.empty + math.min(b.rise, t - b.held)))
  b.granted = math.max(b.granted, t)
  decaying.write(b)
end

function decaying.arrived(b, _, counted)
  decaying.move(b, counted)
end

function decaying.drop(b)
  local own = decaying.own(b)
  if b.held < b.granted then
    b.slack = b.slack - own
  end
  b.empty = b.empty - own
  decaying.write(b)
end

function decaying.used(b, now)
  local empty = tonumber(redis.call('HGET', b.key, 'empty') or 0)
  return math.max(0, empty - now) * b.amount / b.window
end

function decaying.observe() end

function decaying.strangers()
  return 0
end
