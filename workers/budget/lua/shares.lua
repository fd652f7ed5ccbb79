-- Who shares one scope's budget, and what is set aside for those that may have lost Redis. See membership.py for the
-- protocol. Stands after budget.lua and uses its functions; the loader also defines PARTS (a whole limit), PRESENT,
-- HORIZON and LASTS (microseconds).
--
-- The members are one hash: `<id>` is `<beats> <lease> <part> <keep> <drop>`, and `gen` tells the hash from one that was
-- forgotten: `<id> <run id of Redis> <since when it is known that one was forgotten, or 0> <when any of its members could
-- last be granted anything, as far as they are back>`. The member `?` has the parts of those of a forgotten hash that have
-- not come back. They stand beside it with no part and no beats, as far as those that came back knew them.

local function read_members(key, now)
  local flat, members, gen = redis.call('HGETALL', key), {}, nil
  for number = 1, #flat, 2 do
    local id, value = flat[number], flat[number + 1]
    if id == 'gen' then
      gen = value
    else
      local beats, lease, part, keep, drop = string.match(value, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
      if tonumber(drop) <= now then
        redis.call('HDEL', key, id)
      else
        members[id] = {
          beats = tonumber(beats),
          lease = tonumber(lease),
          part = tonumber(part),
          keep = tonumber(keep),
          drop = tonumber(drop),
        }
      end
    end
  end
  return members, gen
end

local function write_member(key, id, m)
  redis.call('HSET', key, id, table.concat({ whole(m.beats), whole(m.lease), whole(m.part), whole(m.keep), whole(m.drop) }, ' '))
end

-- Keeps the parts that are away as `<until when that holds>:<part>,<part>`, so that a reservation reads one string.
local function write_away(key, away_key, members, now)
  local parts, till, last = {}, math.huge, 0
  for _, m in pairs(members) do
    last = math.max(last, m.drop)
    till = math.min(till, m.drop)
    if m.lease + PRESENT <= now then
      if m.part > 0 then
        parts[#parts + 1] = whole(m.part)
      end
    else
      till = math.min(till, m.lease + PRESENT)
    end
  end
  if last == 0 then
    redis.call('DEL', key, away_key)
    return nil
  end
  redis.call('SET', away_key, whole(till) .. ':' .. table.concat(parts, ','))
  expire(away_key, last)
  expire(key, last)
  return parts
end

-- The parts of those that are away; nil where nobody shares.
function parts_away(found, away_key, key, now)
  if not found then
    return nil
  end
  local till, list = string.match(found, '^(%d+):(.*)$')
  if tonumber(till) <= now then
    return write_away(key, away_key, read_members(key, now), now)
  end
  local parts = {}
  for part in string.gmatch(list, '%d+') do
    parts[#parts + 1] = part
  end
  return parts
end

-- What is left of an amount. A part that is too small for a call of cost one is nobody's to use: see shares.py.
function left_of(amount, parts)
  local left = amount
  for _, part in ipairs(parts or {}) do
    local mine = math.floor(amount * tonumber(part) / PARTS)
    if mine >= THOUSAND then
      left = left - mine
    end
  end
  return math.max(left, 0)
end

-- Those that the caller knew in the hash that was forgotten: until they come back, are buried, or may send no more.
local function await_others(key, members, id, till, keep)
  for number = 12, #ARGV do
    local other, lease, drop = string.match(ARGV[number], '^(%S+) (%d+) (%d+)$')
    local m = members[other] or { beats = 0, lease = 0, part = 0, keep = 0, drop = 0 }
    if m.beats == 0 and other ~= id then
      m.lease, m.keep = math.max(m.lease, tonumber(lease)), math.max(m.keep, keep)
      m.drop = math.max(m.drop, drop == '0' and till or tonumber(drop))
      members[other] = m
      write_member(key, other, m)
    end
  end
end

-- KEYS: members, away, epoch, clock, pause. ARGV: beat, id, number of the beat, lease, part, keep, the hash's id
-- as the caller knows it, one to begin, the epoch it knows, one to begin, how long ago it last heard of grants, the others
-- as they were then. Returns {now, part, members, the hash's id, epoch, since, offset, end of the pause, the others}: each
-- `<id> <lease> <when its part is given back, or 0 where it is present>`.
function run.beat()
  local key, now, id = KEYS[1], clock(), ARGV[2]
  local beats, lease, part, keep = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
  local members, gen = read_members(key, now)
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local hash, run_of, told, heard = string.match(gen or '', '^(%S+) (%S+) (%d+) (%d+)$')
  told, heard = tonumber(told or 0), tonumber(heard or 0)
  if hash and run_of ~= run_id then
    -- Kept on disk over a restart: it may lack the last moments, and so is as good as forgotten.
    for other in pairs(members) do
      redis.call('HDEL', key, other)
    end
    hash, members, told, heard = nil, {}, now, 0
  end
  hash = hash or ARGV[8]
  local mine = members[id]
  if mine and mine.beats >= beats then
    return {} -- It was on its way for so long that a later one has overtaken it: nobody waits for this answer.
  end
  if mine and mine.beats == 0 then
    mine, members[id] = nil, nil
  end
  local returns = ARGV[7] ~= '' and ARGV[7] ~= hash and not mine
  if returns and told == 0 or told == now then
    told = now
    members['?'] = { beats = 0, lease = 0, part = PARTS, keep = 0, drop = now + LASTS + keep }
  end
  local rest = members['?']
  if rest then
    rest.drop = math.max(rest.drop, told + LASTS + keep)
    if returns then
      rest.part, heard = math.max(0, rest.part - part), math.max(heard, now - tonumber(ARGV[11]))
      await_others(key, members, id, told + LASTS + keep, keep)
    end
    -- Who was known to nobody that came back has had time to come back itself.
    local awaited = now < told + PRESENT + HORIZON
    for other, m in pairs(members) do
      awaited = awaited or m.beats == 0 and other ~= '?'
    end
    if not awaited then
      heard = 0 -- What those that are dead were granted last nobody knows.
    end
    if rest.part == 0 or not awaited then
      members['?'] = nil
      redis.call('HDEL', key, '?')
    else
      write_member(key, '?', rest)
    end
  end
  if returns then
    lease = 0
  end
  local drop = (mine and lease or now) + LASTS + keep
  mine = mine or { drop = 0 }
  members[id] = mine
  local count, others = 0, 0
  for other, m in pairs(members) do
    count = count + ((other == id or m.beats > 0) and 1 or 0)
    others = others + (other == id and 0 or m.part)
  end
  local offered = math.max(0, math.min(math.floor(PARTS / count), PARTS - others))
  mine.beats, mine.lease, mine.part, mine.keep = beats, lease, math.max(part, offered), keep
  mine.drop = math.max(mine.drop, drop)
  write_member(key, id, mine)
  redis.call('HSET', key, 'gen', table.concat({ hash, run_id, whole(told), whole(heard) }, ' '))
  write_away(key, KEYS[2], members, now)

  local shared = redis.call('MGET', unpack(KEYS, 3))
  local name, since = epoch(KEYS[3], shared[1], ARGV[9], ARGV[10], now, HORIZON)
  if told > 0 then
    since = math.max(since, told + HORIZON)
    if heard > 0 and not members['?'] then
      -- All are back. What was granted to them before was granted until then, and has their instants at the latest.
      since = math.min(since, heard + PRESENT + HORIZON)
    end
  end
  since = math.max(since, frame.lost)
  redis.call('SET', KEYS[3], name .. ':' .. whole(since), 'EX', 90000)
  if frame.id ~= '' then
    redis.call('EXPIRE', frame.key, 90000)
  end
  local answer = {
    now, offered, count, hash, name, since, (offset_in(shared[2])), longest(shared, 3, 3),
  }
  for other, m in pairs(members) do
    if other ~= '?' and other ~= id then
      local drops = m.lease + PRESENT <= now and m.drop or 0
      answer[#answer + 1] = table.concat({ other, whole(m.lease), whole(drops) }, ' ')
    end
  end
  return answer
end

-- KEYS: members, away. ARGV: leave, id. It was present and uses no share any more.
function run.leave()
  redis.call('HDEL', KEYS[1], ARGV[2])
  local now = clock()
  write_away(KEYS[1], KEYS[2], read_members(KEYS[1], now), now)
end

-- KEYS: members, away. ARGV: bury, ids. They are known to be dead. Before `lease + PRESENT + HORIZON` none has sent by
-- itself; later its calls count until they have left every window.
function run.bury()
  local now = clock()
  local members = read_members(KEYS[1], now)
  for number = 2, #ARGV do
    local m = members[ARGV[number]]
    if m and m.lease + PRESENT <= now then
      if now < m.lease + PRESENT + HORIZON then
        members[ARGV[number]] = nil
        redis.call('HDEL', KEYS[1], ARGV[number])
      else
        m.drop = math.min(m.drop, now + m.keep)
        write_member(KEYS[1], ARGV[number], m)
      end
    end
  end
  write_away(KEYS[1], KEYS[2], members, now)
end

local give = {}

-- What others were granted comes between our own, in the order of time; never before the first that is still known.
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

-- KEYS: a bucket, clock, members. ARGV: give, id of the one that comes back, kind, amount, window, then pairs of an
-- instant and what was spent then.
function run.give()
  local grants, others, now = {}, {}, clock()
  for number = 6, #ARGV do
    grants[number - 5] = tonumber(ARGV[number])
  end
  for id, m in pairs(read_members(KEYS[3], now)) do
    if id ~= ARGV[2] and m.lease + PRESENT <= now then
      others[#others + 1] = m.part
    end
  end
  local left = left_of(tonumber(ARGV[4]), others)
  give[ARGV[3]](KEYS[1], grants, tonumber(ARGV[5]), offset_of(KEYS[2]), left)
end

-- Whether another member has heard this clock lately: then it is the caller's own that stood still.
local function is_heard(key, id, now)
  local flat = redis.call('HGETALL', key)
  for number = 1, #flat, 2 do
    local lease = tonumber(string.match(flat[number + 1], '^%d+ (%d+) %d+ %d+ %d+$') or 0)
    if flat[number] ~= id and now - PRESENT < lease and lease <= now then
      return true
    end
  end
  return false
end

-- KEYS: members, clock. ARGV: set, id, the correction's id as the caller found it, by how much to correct further, how
-- uncertain that is, an id for it. Redis's clock was set, as the caller's own has it. Nothing is done where another was
-- faster, or where the caller is alone with its view of a large step. Returns {the correction's id, the time} from now on.
function run.set()
  local by, wrong = tonumber(ARGV[4]), tonumber(ARGV[5])
  local alone = math.abs(by) > 2 * PRESENT and is_heard(KEYS[1], ARGV[2], clock())
  if ARGV[3] ~= frame.id or alone then
    return { frame.id, clock() }
  end
  frame.correction, frame.id = frame.correction + by, ARGV[6]
  if -by >= KEPT then
    frame.lost = clock() + HORIZON -- Redis has dropped keys that still counted.
  end
  write_frame()
  -- The exchange's clock is known by so much worse, until it is read again.
  local found = redis.call('GET', KEYS[2])
  local ahead, error = offset_in(found)
  local value = whole(ahead) .. ':' .. whole(error + wrong)
  redis.call('SET', KEYS[2], value, 'PX', found and math.max(redis.call('PTTL', KEYS[2]), 1) or 3600000)
  return { frame.id, clock() }
end

-- KEYS: those of what is asked, then the clock's correction. ARGV: those of what is asked, then the correction's id as the
-- caller knows it, and between which times this is run if the clock was not set. Returns {the correction's id, the time,
-- 1 if it was run, its answer}. By a clock that was set nothing is run, so that it leaves no trace.
function answer()
  local latest, earliest = tonumber(table.remove(ARGV)), tonumber(table.remove(ARGV))
  local known = table.remove(ARGV)
  read_frame(table.remove(KEYS))
  local now = clock()
  if (frame.id == '' or frame.id == known) and (now < earliest or now > latest) then
    return { frame.id, now, 0, false }
  end
  return { frame.id, now, 1, run[ARGV[1]]() or false }
end
