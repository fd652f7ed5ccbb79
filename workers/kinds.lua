-- The kinds of bucket: what each remembers, when a call fits, and what strangers took of it. Stands before budget.lua,
-- which tells what they have in common, and uses no Redis key but a bucket's own and what was learned of it.
--
-- `clock()`, microseconds since 1970, is defined by the line that the loader puts before this file.

local THOUSAND = 1000 -- ratios are whole thousandths

-- A bucket whose exchange said "too many" holds less than its table says: each time so much less, down to a floor, and
-- a little more again every minute. Each time within a day after it was whole again, that is half as much: a limit that
-- is lower than its table says is met more and more seldom.
local LESS, FLOOR, MORE_A_MINUTE, HALVINGS = 900, 300, 10, 6
local MINUTE, REMEMBERED = 60000000, 86400000000
-- What strangers on our address may take from what we count on. They are noise below a hundredth of the bucket: calls
-- that overtake each other look like strangers too.
local STRANGERS_PART, NOISE_PART = 0.5, 0.01

-- Calls that wait for room anyway are granted apart: this part of the time that the amount has them apart on average.
-- Otherwise a burst would come back as a burst every window, and calls that leave together leave late.
local APART = 500
-- In windows up to this length nobody leaves for the room of a call that was not heard of, until so long after it: it is
-- looked at again a little later.
local SHORT, UNHEARD, LOOK_AGAIN, SOON = 5000000, 3000000, 60000, 25000
-- So many grants at the same instant are told apart.
local SAME = 128
-- As many older ones are looked at, for they may arrive after it.
local OLDER = 16
-- How far from the last grant one is still given back: all after it are written anew.
local GIVEN_BACK = 1000

local function whole(number)
  return string.format('%.0f', number)
end

local function expire(key, at_us)
  redis.call('PEXPIREAT', key, whole(math.ceil(at_us / 1000) + 1))
end

local function more_a_minute(a)
  return MORE_A_MINUTE / 2 ^ math.min(math.max(a.times - 1, 0), HALVINGS)
end

local function whole_again(a)
  return a.at + math.ceil((THOUSAND - a.ratio) / more_a_minute(a)) * MINUTE
end

-- `<ratio>:<since>:<how often>:<span>:<strangers in it>:<strangers in the last one>`: what was learned of a bucket beside
-- its table.
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

-- rolling: a list of pairs: the time of a grant, and all that was spent up to and with it. What stands in the window of
-- a grant is then a difference of two sums, and the first grant that must have left the window is found by its sum.
-- In short windows a time that ends with a half is that of a call of which nothing was heard since: it may still arrive.
local rolling = {}

local function timed(b, at)
  return b.length <= SHORT and b.margin > 0 and string.format('%.1f', at + 0.5) or whole(at)
end

local function spent(key, index)
  return tonumber(redis.call('LINDEX', key, 2 * index + 1))
end

-- The last grant up to and with `at`; -1 where there is none.
local function place(key, at, length)
  local low, high = -1, length
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if tonumber(redis.call('LINDEX', key, 2 * middle)) <= at + 0.5 then
      low = middle
    else
      high = middle
    end
  end
  return low
end

-- What was spent up to and with `at`.
local function upto(key, at, length)
  local last = place(key, at, length)
  return last < 0 and 0 or spent(key, last)
end

-- The time of the first grant with at least `sum` spent, and where it stands; the last grant always has. Looked for where
-- it stands if all cost the same.
local function first(b, sum)
  local length = redis.call('LLEN', b.key) / 2
  local high = math.max(0, math.min(length - 1, length - 1 - math.floor((b.total - sum) / math.max(b.cost, 1))))
  local from = math.max(high - 1, 0)
  local near = redis.call('LRANGE', b.key, 2 * from, 2 * high + 1)
  local low, step = high - 1, 1
  if tonumber(near[#near]) >= sum then
    if low < 0 or tonumber(near[2]) < sum then
      return tonumber(near[#near - 1]), high
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
  return tonumber(redis.call('LINDEX', b.key, 2 * high)), high
end

-- When the first grant with at least `sum` spent, and all before it, have left the window.
local function leaves(b, sum)
  local at, index = first(b, sum)
  local free = math.floor(at) + b.window + b.margin
  if b.length > SHORT or b.margin == 0 or free > b.now + SOON then
    return free
  end
  local older = redis.call('LRANGE', b.key, 2 * math.max(0, index - OLDER), 2 * index)
  for number = #older, 1, -2 do
    local heard = tonumber(older[number])
    if heard < b.now - UNHEARD then
      return free
    end
    if heard % 1 > 0 then
      return math.max(free, b.now + LOOK_AGAIN)
    end
  end
  return free
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
  b.last, b.total = math.floor(tonumber(tail[1] or 0)), tonumber(tail[2] or 0)
  local leave = b.total + b.cost - b.cap
  if leave > 0 then
    local free = leaves(b, leave)
    if free > b.at then
      free = math.max(free, b.last + math.floor(b.window * b.cost * APART / (b.amount * THOUSAND)))
    end
    b.last = math.max(b.last, free)
  end
  if b.since > 0 then
    b.last = math.max(b.last, b.since + b.window + b.margin)
  end
end

function rolling.fit(_, t)
  return t
end

function rolling.take(b, t, now)
  redis.call('RPUSH', b.key, timed(b, t), whole(b.total + b.cost))
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

-- Finds the grant at `at` again. Those at that instant and of the same cost look alike: of the ones not heard of it is
-- the first for who has sent its call, and the last for who is still to.
function rolling.hold(b, at, sent)
  b.count = redis.call('LLEN', b.key) / 2
  b.held, b.mine = at, nil
  local unheard, last = false, place(b.key, at, b.count)
  if last < 0 then
    return false
  end
  local from = math.max(0, last - SAME)
  local near = redis.call('LRANGE', b.key, 2 * from, 2 * last + 1)
  for index = last, from, -1 do
    local place_of = 2 * (index - from)
    local found = tonumber(near[place_of + 1])
    if math.floor(found) ~= at then
      break
    end
    -- Before the first one there was nothing, or it is too old to be looked for.
    local before = near[place_of] or index == 0 and 0
    if before and near[place_of + 2] - before == b.cost and (not b.mine or found > at and (sent or not unheard)) then
      b.mine, unheard = index, found > at
    end
  end
  b.total = spent(b.key, -1)
  return b.mine ~= nil
end

-- Where it comes to stand among the others at `t`.
local function among(b, t)
  return t > b.held and place(b.key, t, b.count) or b.mine
end

function rolling.refit(b, t)
  local sum, mine = spent(b.key, among(b, t)), spent(b.key, b.mine)
  local leave = sum - b.cap
  if leave > 0 then
    if leave > mine - b.cost then
      leave = leave + b.cost -- It no longer stands before those.
    end
    t = math.max(t, leaves(b, leave))
  end
  return t
end

function rolling.move(b, t, heard)
  local to = among(b, t)
  if to > b.mine then
    local passed, sum = redis.call('LRANGE', b.key, 2 * b.mine + 2, 2 * to + 1), 0
    for number = 1, #passed, 2 do
      sum = passed[number + 1]
      redis.call('LSET', b.key, 2 * b.mine + number - 1, passed[number])
      redis.call('LSET', b.key, 2 * b.mine + number, whole(tonumber(sum) - b.cost))
    end
    redis.call('LSET', b.key, 2 * to + 1, sum)
  end
  redis.call('LSET', b.key, 2 * to, heard and whole(t) or timed(b, t))
  if to == b.count - 1 then
    expire(b.key, t + 4 * b.length + b.margin)
  end
  b.held, b.mine = t, to
end

function rolling.arrived(b, _, counted)
  rolling.move(b, counted, true)
end

function rolling.drop(b)
  if b.count - b.mine > GIVEN_BACK then
    return
  end
  local later = redis.call('LRANGE', b.key, 2 * b.mine + 2, -1)
  if b.mine == 0 then
    redis.call('DEL', b.key)
  else
    redis.call('LTRIM', b.key, 0, 2 * b.mine - 1)
  end
  for number = 1, #later, 2 do
    redis.call('RPUSH', b.key, later[number], whole(tonumber(later[number + 1]) - b.cost))
  end
  if b.mine == 0 and #later > 0 then
    expire(b.key, tonumber(later[#later - 1]) + 4 * b.length + b.margin)
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

function fixed.hold(b, at)
  fixed.read(b)
  b.held, b.mine = at, math.floor((at + b.offset) / b.window)
  return b.index >= b.mine
end

function fixed.refit(b, t)
  if t == b.held or t <= (b.mine + 1) * b.window - b.offset - b.margin then
    return t
  end
  return fixed.fit(b, t)
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

-- It may have been counted in the next window, or still in its own: so it counts in both.
function fixed.arrived(b, arrived)
  local index = math.floor((arrived + b.offset) / b.window)
  if index > b.mine and index >= b.index then
    if index > b.index then
      b.index, b.spent, b.others = index, 0, 0
    end
    b.spent = b.spent + b.cost
    fixed.write(b)
  end
end

function fixed.drop(b)
  if b.index == b.mine then
    b.spent = math.max(0, b.spent - b.cost)
    fixed.write(b)
  end
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
  b.granted = b.last
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

function decaying.hold(b, at)
  decaying.read(b)
  b.held = at
  return b.empty > 0
end

function decaying.refit(_, t)
  return t
end

function decaying.write(b)
  redis.call('HSET', b.key, 'empty', whole(b.empty), 'last', whole(b.last))
  expire(b.key, math.max(b.empty, b.last))
end

-- The level may have been zero in between.
function decaying.move(b, t)
  b.empty, b.last = math.max(b.empty, t + b.rise), math.max(b.granted, t)
  decaying.write(b)
end

function decaying.arrived(b, _, counted)
  decaying.move(b, counted)
end

function decaying.drop(b)
  b.empty, b.last = b.empty - b.rise, b.granted
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

local KINDS = { rolling = rolling, fixed = fixed, decaying = decaying, paced = decaying }
