-- Pauses, and what the workers of a scope share beside grants: the exchange's clock, the fastest round trips.
-- Stands after budget.lua and uses its functions.

-- However long a pause is, no more is kept of it after its end than this.
local LONGEST_KEPT = 3600000000

-- An operator lifts a pause by ending it now, with this reason in its place (schemas/operator/pauses.py). Returns when
-- that was, or false.
local function lifted(found)
  return tonumber(string.match(found or '', '^(%d+):%d+:lifted$')) or false
end

-- keys: the pauses.
-- answer: how long they still hold, when the last of them was lifted, or false, which of them holds longest, and why it
--   was set.
function entry.paused(keys)
  local found, last, till, longest_one, why = redis.call('MGET', unpack(keys)), false, 0, 1, ''
  for number = 1, #keys do
    local at = lifted(found[number])
    last = at and math.max(at, last or 0) or last
    local ends, said = string.match(found[number] or '', '^(%d+):%d+:(.*)')
    if tonumber(ends or 0) > till then
      till, longest_one, why = tonumber(ends), number, said
    end
  end
  return { math.max(0, till - clock()), last, longest_one, why }
end

-- A pause is never made shorter. A call that was out before the pause says nothing new: only one that was granted
-- after it makes the next one longer. Where the exchange itself named the length, that is so only if it refuses at
-- once: then what it named was too short. A pause that was lifted is not set again by a worker that sends what it
-- remembers.
-- keys: the pauses to set.
-- args: how long, the most that it may become, the reason, 1 if the exchange itself named the length, when the call
--   that met the limit was granted or '', 1 if the pause was set before.
-- answer: how long the pauses hold now.
function entry.pause(keys, args)
  local length, most, reason, named = tonumber(args[1]), tonumber(args[2]), args[3], args[4] == '1'
  local at, again = tonumber(args[5]), args[6] == '1'

  local now, holds = clock(), 0
  for _, key in ipairs(keys) do
    local found = redis.call('GET', key)
    local till, doublings = string.match(found or '', '^(%d+):(%d+):')
    till, doublings = tonumber(till or 0), tonumber(doublings or 0)
    local mine = length
    if at and at >= till then
      local met_again = till > 0 and (not named or at < till + AT_ONCE)
      doublings = met_again and math.min(doublings + 1, DOUBLINGS) or named and 0 or doublings
    end
    if not named or (at and at >= till) then
      mine = math.max(length, math.min(length * 2 ^ doublings, most))
    end
    if now + mine > till and not (again and lifted(found)) then
      till = now + mine
      redis.call('SET', key, whole(till) .. ':' .. whole(doublings) .. ':' .. reason)
      expire(key, till + math.max(PAUSE_KEPT, math.min(2 * mine, LONGEST_KEPT)))
    end
    holds = math.max(holds, till - now)
  end
  return holds
end

-- keys: the clock.
-- args: how far the exchange's clock is ahead of Redis's, and by how much that may be wrong.
function entry.clock(keys, args)
  local key, ahead, wrong = keys[1], args[1], args[2]

  redis.call('SET', key, ahead .. ':' .. wrong, 'PX', CLOCK_TTL_MS)
end

-- keys: the fastest round trips of this time, and of the one before.
-- args: when the former are forgotten (seconds since 1970), then pairs of microseconds and the endpoint of a trip.
-- answer: both: pairs of an endpoint and microseconds.
function entry.trips(keys, args)
  local this, before, ends = keys[1], keys[2], args[1]
  local function trip(number) return args[2 * number], args[2 * number + 1] end

  for number = 1, (#args - 1) / 2 do
    local took, endpoint = trip(number)
    redis.call('ZADD', this, 'LT', took, endpoint)
    redis.call('EXPIREAT', this, ends)
  end
  local both = redis.call('ZRANGE', before, 0, -1, 'WITHSCORES')
  for _, one in ipairs(redis.call('ZRANGE', this, 0, -1, 'WITHSCORES')) do
    both[#both + 1] = one
  end
  return both
end
