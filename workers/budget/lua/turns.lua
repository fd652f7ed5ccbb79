-- What becomes of a reservation after it was made: looked at again before its call leaves, moved to a later instant,
-- given back. Stands after budget.lua and uses its functions.
--
-- An instant is a promise about an arrival. A call that left late, or whose way was longer than the margin allows for,
-- arrived later than that; its answer tells. Then its grant is moved to where it belongs (`late`), and those that were
-- granted upon it find out when they look again, shortly before they leave (`again`): they move in their turn.

-- How late a call may look again and keep its instant: nobody has to be told of one that arrives as late as that. A
-- rolling window without a margin counts instants alone. A level without one is to be kept from when the call leaves.
local function tolerated(plan)
  local least = math.huge
  for _, b in ipairs(plan.buckets) do
    if b.margin > 0 or b.kind ~= rolling then
      least = math.min(least, b.margin, LEAST_MARGIN)
    end
  end
  return least
end

-- KEYS: as for reserve. ARGV: again, four doubles (longest wait, how soon the caller can be ready to send, how far its
-- calls spread, the instant held), buckets. Returns as reserve does; where nothing is
-- granted the reservation was given back. A wait of 0 says that it was forgotten, or came so late that others may have
-- looked for the last time since it left their windows, and may be asked for anew.
function run.again()
  local now, limit, lead, far, at = clock(), struct.unpack('<dddd', ARGV[2])
  local plan = planned(now, lead, far)
  local t, held_by, forgotten, unheard = math.max(at, plan.pause), 0, false, false
  if now + lead > at + tolerated(plan) then
    t = math.max(t, now + lead)
  end
  if plan.away then
    limit = math.min(limit, HORIZON - lead)
  end
  local held = {}
  for number, b in ipairs(plan.buckets) do
    if b.kind.hold(b, at) then
      held[#held + 1] = { b, number }
    else
      forgotten, unheard = true, unheard or is_short(b)
    end
  end
  local fits, rounds = false, 0
  while not fits and rounds < 64 do
    local before = t
    for _, one in ipairs(held) do
      local fit = one[1].kind.refit(one[1], t)
      if fit > t then
        t, held_by = fit, one[2]
      end
    end
    fits, rounds = t == before, rounds + 1
  end
  local stale = false
  for _, one in ipairs(held) do
    stale = stale or one[1].kind == rolling and t > at + one[1].length - SOON
  end
  local refused = t - now > limit + lead or not fits
  -- What was forgotten may still be sent at its instant; not where those before it may have come late, which nobody knows.
  if refused or stale or forgotten and (t > at or unheard) then
    for _, one in ipairs(held) do
      one[1].kind.drop(one[1])
    end
    if not refused then
      return { 0, 0, now, 0, plan.id, 0 }
    end
    return { 0, t - now, t, plan.pause - now > limit + lead and 1 or 0, plan.id, held_by }
  end
  if t > at then
    for _, one in ipairs(held) do
      one[1].kind.move(one[1], t)
    end
  end
  return granted(plan, t, now, held_by)
end

local function each_held(act)
  local offset, at = offset_of(KEYS[#KEYS]), tonumber(ARGV[2])
  for number = 1, #KEYS - 1 do
    local b = bucket(number, offset, 0, false, clock(), 0)
    if b.kind.hold(b, at, true) then
      act(b)
    end
  end
end

-- KEYS: buckets, clock. ARGV: late, the instant granted, by when the call has arrived, what its buckets' margins allow,
-- 0 where it got no answer and may arrive still, buckets.
function run.late()
  local at, arrived, margin, heard = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
  each_held(function(b)
    if b.margin > 0 and (heard or not is_short(b)) then
      b.kind.arrived(b, arrived, math.max(at, arrived - margin))
    end
  end)
end

-- KEYS: buckets, clock. ARGV: back, the instant granted, buckets. The call was not sent.
function run.back()
  each_held(function(b)
    b.kind.drop(b)
  end)
end
