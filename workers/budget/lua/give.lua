-- What a worker granted itself while it was away is added to the buckets. Stands after shares.lua, uses its functions.

local give = {}

-- Grants of others come between our own, in the order of time; never before the first that is still known.
function give.rolling(key, grants, window)
  local flat, merged, sum, added = redis.call('LRANGE', key, 0, -1), {}, 0, 0
  local from = 1
  local function add_until(at)
    while grants[from] and grants[from] <= at do
      added = added + grants[from + 1]
      merged[#merged + 1] = whole(math.max(grants[from], tonumber(flat[1] or 0)))
      merged[#merged + 1] = whole(sum + added)
      from = from + 2
    end
  end
  for number = 1, #flat, 2 do
    local at = tonumber(flat[number])
    if number > 1 then
      add_until(at - 1)
    end
    sum = tonumber(flat[number + 1])
    merged[#merged + 1] = flat[number]
    merged[#merged + 1] = whole(sum + added)
  end
  add_until(math.huge)
  redis.call('DEL', key)
  for number = 1, #merged, 1000 do
    redis.call('RPUSH', key, unpack(merged, number, math.min(number + 999, #merged)))
  end
  expire(key, tonumber(merged[#merged - 1]) + 5 * window)
end

function give.fixed(key, grants, window, offset, left)
  local b = { key = key, window = window, offset = offset, full = left, margin = window, at = 0, since = 0 }
  fixed.read(b)
  for number = 1, #grants, 2 do
    local index = math.floor((grants[number] + offset) / window)
    if index >= b.index then
      fixed.turn(b, index)
      b.spent, b.last = b.spent + grants[number + 1], math.max(b.last, grants[number])
    end
  end
  fixed.write(b)
end

-- One pair: the last grant, and the level then. It falls as fast as what we grant from now on: see `left_of`.
function give.decaying(key, grants, window, _, left)
  local state = redis.call('HMGET', key, 'empty', 'last')
  local rise = math.ceil(grants[2] * window / math.max(left, 1))
  local empty = math.max(tonumber(state[1] or 0), clock(), grants[1]) + rise
  local last = math.max(tonumber(state[2] or 0), grants[1])
  redis.call('HSET', key, 'empty', whole(empty), 'last', whole(last))
  expire(key, math.max(empty, last))
end

give.paced = give.decaying

-- What a worker granted itself while it was away is added to a bucket.
-- keys: a bucket, clock, members.
-- args: the id of the worker that comes back, kind, amount, window, then pairs of an instant and what was spent then.
function entry.give(keys, args)
  local key, clock_key, members_key = keys[1], keys[2], keys[3]
  local id, kind, amount, window = args[1], args[2], tonumber(args[3]), tonumber(args[4])
  local grants = {}
  for number = 5, #args do grants[number - 4] = tonumber(args[number]) end

  local others, now = {}, clock()
  for other, m in pairs(read_members(members_key, now)) do
    if other ~= id and m.lease + PRESENT <= now then
      others[#others + 1] = m.part
    end
  end
  give[kind](key, grants, window, offset_of(clock_key), left_of(amount, others))
end
