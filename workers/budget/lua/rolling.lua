-- Buckets with rolling windows. Stands after kinds.lua.

-- Calls that wait for room anyway are granted apart: this part of the time that the amount has them apart on average.
-- Otherwise a burst would come back as a burst every window, and calls that leave together leave late.
local APART = 500
-- In windows up to SHORT no call uses the room of a call without an answer, until UNANSWERED after it. LOOK_AGAIN: such
-- a call checks again after this time. SOON: a call that is due within this time checks for the last time.
local LOOK_AGAIN, SOON = 60000, 25000
-- SAME: so many grants of one instant can be found. NEAR: so many are read first.
local SAME, NEAR = 128, 3
-- So many earlier grants are checked, because their calls may arrive later.
local OLDER = 100
-- ROOMS: so many points say how room comes within a window.
local ROOMS = 16
-- A grant is given back only if no more than so many came after it: all of those are written again.
local GIVEN_BACK = 1000

-- rolling: a list of pairs: the time of a grant, and all that was spent up to and with it. What stands in the window of
-- a grant is then a difference of two sums, and the first grant that must have left the window is found by its sum. In
-- short windows a time that ends with a half is that of a call without an answer so far: it may still arrive.
local rolling = {}

local function is_short(b)
  return b.kind == rolling and b.length <= SHORT and b.margin > 0
end

local function timed(b, at)
  return is_short(b) and whole(at) .. '.5' or whole(at)
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

-- The time of the first grant with at least `sum` spent, and where it stands; the last grant always has. Looked for
-- where it stands if all cost the same.
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

-- When the first grant with at least `sum` spent, and all before it, have left the window. A call with an answer
-- arrived no more than the least margin after the instant that it has now, whatever the margin was when it left. In
-- short windows that is unsure where it is too far ahead to know which calls will have an answer by then, or where one
-- has none.
local function leaves(b, sum)
  local at, index = first(b, sum)
  local answered = is_short(b) and at % 1 == 0
  local free = math.floor(at) + b.window + (answered and math.min(b.margin, LEAST_MARGIN) or b.margin)
  if not is_short(b) then
    return free
  elseif free > b.now + SOON then
    b.unsure = true
    return free
  end
  local older = redis.call('LRANGE', b.key, 2 * math.max(0, index - OLDER), 2 * index)
  for number = #older, 1, -2 do
    local one = tonumber(older[number])
    local unanswered, old = one % 1 > 0, one < b.now - UNANSWERED
    if unanswered then
      b.unsure = b.unsure or not old
      return math.max(free, old and math.floor(one) + b.window + b.margin or b.now + LOOK_AGAIN)
    elseif old then
      return free
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

-- How room comes for calls like this one within a window: pairs of how many have had some, and the instant. Each new
-- point halves the longest time between two. Nothing where room comes no later than calls can be apart.
function rolling.rooms(b)
  local most = b.cost > 0 and math.floor(b.cap / b.cost) or 0
  if most < 2 then
    return {}
  end

  local function room(calls)
    local leave = b.total + calls * b.cost - b.cap
    return leave > 0 and math.floor((first(b, leave))) + b.window + b.margin or b.at
  end
  local points = { 1, room(1), most, room(most) }
  while #points < 2 * ROOMS do
    local place_of, longest = nil, 0
    for number = 1, #points - 3, 2 do
      local time = points[number + 3] - points[number + 1]
      if points[number + 2] - points[number] > 1 and time > longest then
        place_of, longest = number, time
      end
    end
    if not place_of then
      break
    end
    local calls = math.floor((points[place_of] + points[place_of + 2]) / 2)
    table.insert(points, place_of + 2, room(calls))
    table.insert(points, place_of + 2, calls)
  end
  for number = 3, #points, 2 do
    if points[number + 1] - points[2] > (points[number] - 1) * b.window / most then
      return points
    end
  end
  return {}
end

function rolling.fit(_, t)
  return t
end

function rolling.take(b, t, now)
  redis.call('RPUSH', b.key, timed(b, t), whole(b.total + b.cost))
  b.rank = b.total + b.cost
  -- Drops grants that can delay no later call (a live call of no cost looks for this sum, all others for more), and
  -- from which no answer that is still to come is counted. One grant comes, at most two go.
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

-- The exchange counted so much within the `span` that ended at `at`. No later grant's call had arrived by then.
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

-- Finds the grant at `at` again. Grants for that instant and of the same cost look alike. Of those without an answer it
-- is the first for a call that was sent, and the last for a call that is still to leave.
function rolling.hold(b, at, sent)
  b.count = redis.call('LLEN', b.key) / 2
  b.held, b.mine, b.total = at, nil, 0
  local index = place(b.key, at, b.count)
  local unanswered, least, size = false, math.max(0, index - SAME), NEAR
  while index >= least do
    local from = math.max(0, index - size)
    local near = redis.call('LRANGE', b.key, 2 * from, 2 * index + 1)
    -- The first of them says what was spent before the second, and there is nothing before the very first.
    local stop = from == 0 and 0 or from + 1
    while index >= stop do
      local place_of = 2 * (index - from)
      local found = tonumber(near[place_of + 1])
      if math.floor(found) ~= at then
        least = index + 1
        break
      end
      local before = near[place_of] or 0
      if near[place_of + 2] - before == b.cost and (not b.mine or found > at and (sent or not unanswered)) then
        b.mine, unanswered = index, found > at
      end
      index = index - 1
    end
    size = 2 * size
  end
  if b.mine then
    b.total = spent(b.key, -1)
  end
  return b.mine ~= nil
end

-- Its place among the others if it is moved to `t`.
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

-- FEW_PART: past at most this part of those behind it a grant is moved one by one. CHUNK: so many values go into one
-- command.
local FEW_PART, CHUNK = 0.1, 1000

-- Moves the grant to a later place; those that it passes move one place forward. A few are written one by one. For many
-- the rest of the list is written again, as each LSET walks through the list. The first one stays, so that the key and
-- its time to live are never lost.
local function shift(b, to)
  local few, passed = to - b.mine <= math.max(1, (b.count - b.mine) * FEW_PART), 2 * (to - b.mine)
  local list = redis.call('LRANGE', b.key, 2 * b.mine + 2, few and 2 * to + 1 or -1)
  local sum = list[passed]
  for number = 2, passed, 2 do
    list[number] = whole(tonumber(list[number]) - b.cost)
  end
  -- The grant's own time is written by the caller.
  table.insert(list, passed + 1, list[passed - 1])
  table.insert(list, passed + 2, sum)
  local one_by_one = few and #list or 2
  for number = 1, one_by_one do
    redis.call('LSET', b.key, 2 * b.mine + number - 1, list[number])
  end
  if not few then
    redis.call('LTRIM', b.key, 0, 2 * b.mine + 1)
    for from = 3, #list, CHUNK do
      redis.call('RPUSH', b.key, unpack(list, from, math.min(from + CHUNK - 1, #list)))
    end
  end
end

function rolling.move(b, t, answered)
  local to = among(b, t)
  if to > b.mine then
    shift(b, to)
  end
  redis.call('LSET', b.key, 2 * to, answered and whole(t) or timed(b, t))
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
