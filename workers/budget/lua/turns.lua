-- What becomes of a reservation after it was made: it is looked at again before its call leaves, moved to a later
-- instant, or given back. Stands after budget.lua and uses its functions.
--
-- An instant is a promise about an arrival. A call that left late, or was longer on its way than the margin allows for,
-- arrived later than that; its answer shows that. Then its grant is moved to where it belongs (`late`), and the calls
-- that were granted upon it find out when they look again, shortly before they leave (`again`): they move in their
-- turn.

-- How late a call may look again and keep its instant: an arrival as late as that disturbs no other. A rolling window
-- without a margin counts instants alone. A level without a margin holds from when the call leaves.
local function tolerated(plan)
  local least = math.huge
  for _, b in ipairs(plan.buckets) do
    if b.margin > 0 or b.kind ~= rolling then
      least = math.min(least, b.margin, LEAST_MARGIN)
    end
  end
  return least
end

-- Which of a plan's buckets still know the grant at `at`, by their places; whether any has forgotten it; and whether
-- one of those has a short window, in which it is not known any more which calls were late.
local function found_again(plan, at)
  local held, forgotten, short = {}, false, false
  for number, b in ipairs(plan.buckets) do
    if b.kind.hold(b, at) then
      held[number] = b
    else
      forgotten, short = true, short or is_short(b)
    end
  end
  return held, forgotten, short
end

-- Whether a call that was granted for `at` and would be moved to `t` is so late that others, which looked for the last
-- time before, may use the room that it had left by then. A window without a margin counts instants, so there `t` may
-- have passed.
local function overtaken(held, t, at, now)
  for _, b in pairs(held) do
    if b.kind == rolling and t > at and math.max(t, now) > at + b.length - SOON then
      return true
    end
  end
  return false
end

local function each(held, act, ...)
  for _, b in pairs(held) do
    b.kind[act](b, ...)
  end
end

-- keys: those of a call (`planned` in budget.lua).
-- args: five doubles (the longest wait, how long the caller needs to be ready, how far its calls spread, 1 if it has
--   measured that, the instant held), the buckets.
-- answer: as `granted`; or as `refused`, and the reservation was given back; or {'forgotten'}: it may be asked for
--   anew.
function entry.again(keys, args)
  local limit, lead, far, measured, at = struct.unpack('<ddddd', args[1])
  local packed = args[2]

  local now = clock()
  local plan = planned({ keys = keys, packed = packed, lead = lead, far = measured == 1 and far }, now)
  local t = math.max(at, plan.pause)
  if now + lead > at + tolerated(plan) then
    t = math.max(t, now + lead)
  end
  if plan.away then
    limit = math.min(limit, HORIZON - lead)
  end
  local held, forgotten, short = found_again(plan, at)
  local held_by, fits
  t, held_by, fits = fitting(held, t, 'refit')
  if t - now > limit + lead or not fits then
    each(held, 'drop')
    return refused(plan, t, now, held_by, now + limit + lead)
  end
  if plan.short and t > at then -- it has no room while the parts of others are set aside; see `reserve`
    each(held, 'drop')
    return refused(plan, math.max(now + ASK_AGAIN, plan.pause), now, plan.short, now + limit + lead)
  end
  -- A call that was forgotten may still be sent at its instant; not where calls before it may have been late unnoticed.
  if overtaken(held, t, at, now) or forgotten and (t > at or short) then
    each(held, 'drop')
    return { 'forgotten' }
  end
  if t > at then
    each(held, 'move', t)
  end
  return granted(plan, t, now, held_by)
end

-- Acts on each of the buckets that still know the grant at `at`.
local function each_that_holds(keys, packed, at, act)
  local clock_key = keys[1]
  local function key_of(number) return keys[1 + number] end

  local now, offset = clock(), offset_of(clock_key)
  for number = 1, #packed / BUCKET_BYTES do
    local b = bucket_now(packed, number, key_of(number), offset, false, now)
    if b.kind.hold(b, at, true) then
      act(b)
    end
  end
end

-- keys: the clock, the buckets.
-- args: the instant granted, by when the call has arrived, what its buckets' margins allow, 1 if it was answered and 0
--   if it may arrive still, the buckets.
function entry.late(keys, args)
  local at, arrived, margin_us, answered = tonumber(args[1]), tonumber(args[2]), tonumber(args[3]), args[4] == '1'
  local packed = args[5]

  each_that_holds(keys, packed, at, function(b)
    if b.margin > 0 and (answered or not is_short(b)) then
      b.kind.arrived(b, arrived, math.max(at, arrived - margin_us))
    end
  end)
end

-- The call is not sent.
-- keys: the clock, the buckets.
-- args: the instant granted, the buckets.
function entry.back(keys, args)
  local at, packed = tonumber(args[1]), args[2]

  each_that_holds(keys, packed, at, function(b)
    b.kind.drop(b)
  end)
end
