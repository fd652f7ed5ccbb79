-- The workers that share one scope's budget, and what is set aside for those that may have lost Redis. See
-- membership.py for the protocol. Stands after budget.lua and uses its functions.
--
-- The members are one hash: `<id>` is `<beats> <lease> <part> <keep> <drop>`, and `gen` tells the hash from one that
-- was forgotten: `<id> <run id of Redis> <since when it is known that one was forgotten, or 0> <when any of its members
-- could last be granted anything, as far as they are back>`. The member `?` has the parts of the members of a forgotten
-- hash that have not come back. They stand beside it with no part and no beats, as far as the members that came back
-- knew them.

-- How long others are waited for that nobody knows.
local RETURN = PRESENT + HORIZON

local function read_member(value)
  local beats, lease, part, keep, drop = string.match(value or '', '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  return beats
    and {
      beats = tonumber(beats),
      lease = tonumber(lease),
      part = tonumber(part),
      keep = tonumber(keep),
      drop = tonumber(drop),
    }
end

local function read_members(key, now)
  local flat, members, gen = redis.call('HGETALL', key), {}, nil
  for number = 1, #flat, 2 do
    local id, value = flat[number], flat[number + 1]
    if id == 'gen' then
      gen = value
    else
      local m = read_member(value)
      if m.drop <= now then
        redis.call('HDEL', key, id)
      else
        members[id] = m
      end
    end
  end
  return members, gen
end

local function write_member(key, id, m)
  local value = { whole(m.beats), whole(m.lease), whole(m.part), whole(m.keep), whole(m.drop) }
  redis.call('HSET', key, id, table.concat(value, ' '))
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

-- The parts of the members that are away; nil where no worker shares the scope.
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

-- What is left of an amount. A part that is too small for a call of cost one is not used by anybody: see share.py.
function left_of(amount, parts)
  local left = amount
  for _, part in ipairs(parts or {}) do
    local mine = math.floor(amount * tonumber(part) / PARTS)
    if mine >= SCALE then
      left = left - mine
    end
  end
  return math.max(left, 0)
end

-- `gen`, read: its id, when it became known that a hash before it was forgotten, and when that one's members were last
-- answered.
local function read_gen(gen)
  local id, run_of, forgotten, answered = string.match(gen or '', '^(%S+) (%S+) (%d+) (%d+)$')
  return { id = id, run_of = run_of, forgotten = tonumber(forgotten or 0), answered = tonumber(answered or 0) }
end

-- The members and their hash as this Redis knows them. A hash that was kept on disk over a restart may lack the last
-- moments, and is as good as forgotten.
local function read_hash(key, now, run_id, new)
  local members, gen = read_members(key, now)
  local hash = read_gen(gen)
  if hash.id and hash.run_of ~= run_id then
    for other in pairs(members) do
      redis.call('HDEL', key, other)
    end
    members, hash = {}, { forgotten = now, answered = 0 }
  end
  hash.is_new = not hash.id
  hash.id, hash.run_of = hash.id or new, run_id
  return members, hash
end

-- The caller never met this Redis, and is the first here: it may have been emptied, and others may be on their shares,
-- or have been granted something. Everything is set aside until they have had time to come back.
local function await_any(key, members, now)
  members['?'] = { beats = 0, lease = 0, part = PARTS, keep = 0, drop = now + RETURN }
  write_member(key, '?', members['?'])
end

-- The members that the caller knew in the forgotten hash: until they come back, are buried, or may send no more.
local function await_others(key, members, mine, till)
  for _, known in ipairs(mine.others) do
    local other, lease, drop = string.match(known, '^(%S+) (%d+) (%S+)$')
    local m = members[other] or { beats = 0, lease = 0, part = 0, keep = 0, drop = 0 }
    if m.beats == 0 and other ~= mine.id then
      m.lease, m.keep = math.max(m.lease, tonumber(lease)), math.max(m.keep, mine.keep)
      m.drop = math.max(m.drop, drop == IS_PRESENT and till or tonumber(drop))
      members[other] = m
      write_member(key, other, m)
    end
  end
end

-- Sets aside the parts of a hash that was forgotten, now or before, as far as its members have not come back.
-- `returns`: the caller is one of them.
local function set_aside(key, members, hash, mine, returns, now)
  if returns and hash.forgotten == 0 or hash.forgotten == now then
    hash.forgotten = now
    members['?'] = { beats = 0, lease = 0, part = PARTS, keep = 0, drop = now + LASTS + mine.keep }
  end
  local rest = members['?']
  if not rest or hash.forgotten == 0 then
    return
  end
  local till = hash.forgotten + LASTS + mine.keep
  rest.drop = math.max(rest.drop, till)
  if returns then
    rest.part, hash.answered = math.max(0, rest.part - mine.part), math.max(hash.answered, now - mine.silent)
    await_others(key, members, mine, till)
  end
  -- A member that was known to none that came back has had time to come back itself.
  local known = false
  for other, m in pairs(members) do
    known = known or m.beats == 0 and other ~= '?'
  end
  local awaited = known or now < hash.forgotten + RETURN
  if not awaited and rest.part > 0 then
    hash.answered = 0 -- It is not known what the dead ones were granted last.
  end
  -- Also when all parts are back: those without one may have been granted something too.
  if not awaited then
    members['?'] = nil
    redis.call('HDEL', key, '?')
  else
    write_member(key, '?', rest)
  end
end

-- Takes the caller's beat in. Returns the part it is offered, and how many share the scope.
local function offer(key, members, mine, before, now)
  local m = before or { drop = 0 }
  members[mine.id] = m
  local count, others = 0, 0
  for other, one in pairs(members) do
    count = count + ((other == mine.id or one.beats > 0) and 1 or 0)
    others = others + (other == mine.id and 0 or one.part)
  end
  local offered = math.max(0, math.min(math.floor(PARTS / count), PARTS - others))
  m.beats, m.lease, m.part, m.keep = mine.beats, mine.lease, math.max(mine.part, offered), mine.keep
  m.drop = math.max(m.drop, (before and mine.lease or now) + LASTS + mine.keep)
  write_member(key, mine.id, m)
  return offered, count
end

-- Since when what Redis remembers is complete: before, every bucket may have been full.
local function complete_since(since, members, hash, now)
  if hash.forgotten > 0 then
    since = math.max(since, hash.forgotten + HORIZON)
    -- Also those that had no part, as far as others knew them.
    local rest = members['?']
    local back = not rest or rest.part == 0
    for other, m in pairs(members) do
      back = back and (m.beats > 0 or other == '?')
    end
    if hash.answered > 0 and back and now >= hash.forgotten + RETURN then
      -- All are back, and so are those that came after the others had lost Redis, if there are any. What they were
      -- granted before was granted until then, and has its instants at the latest.
      since = math.min(since, hash.answered + PRESENT + HORIZON)
    end
  end
  return math.max(since, frame.lost)
end

-- 1 while nothing is granted, as others may have to come back that nobody knows, else 0. Once that is over the mark for
-- the exchange is set: then this run of Redis has met everybody who could reach it.
local function is_closed(met_key, members, hash, now)
  local rest = members['?']
  if rest and hash.forgotten == 0 then
    return 1
  end
  if hash.forgotten == 0 or now >= hash.forgotten + RETURN then
    redis.call('SET', met_key, hash.run_of, 'EX', DAY_AND_MORE_S)
  end
  return 0
end

-- keys: members, away, epoch, clock, pause, the mark of those that were met.
-- args: the member's id, the number of its beat, its lease, its part, how long a part of it is kept, the hash's id as
--   it knows it or '', one to begin, the epoch it knows or '', one to begin, how long ago Redis last answered it, then
--   the others as they were then.
-- answer: the time, the part, the number of members, the hash's id, the epoch, since when it is complete, the offset of
--   the exchange's clock, the end of the pause, 1 while nothing is granted as others may have to come back, then the
--   others: each `<id> <lease> <IS_PRESENT, or when its part is given back>`. Nothing where a later beat has overtaken
--   this one: nobody waits for the answer.
function entry.beat(keys, args)
  local key, away_key, epoch_key, clock_key, pause_key, met_key = keys[1], keys[2], keys[3], keys[4], keys[5], keys[6]
  local mine = {
    id = args[1], beats = tonumber(args[2]), lease = tonumber(args[3]), part = tonumber(args[4]),
    keep = tonumber(args[5]), silent = tonumber(args[10]), others = { unpack(args, 11) },
  }
  local known_hash, new_hash, known_epoch, new_epoch = args[6], args[7], args[8], args[9]

  local now, run_id = clock(), string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local members, hash = read_hash(key, now, run_id, new_hash)
  local before = members[mine.id]
  if before and before.beats >= mine.beats then
    return false
  end
  if before and before.beats == 0 then
    before, members[mine.id] = nil, nil
  end
  local returns = known_hash ~= '' and known_hash ~= hash.id and not before
  if known_hash == '' and hash.is_new and redis.call('GET', met_key) ~= run_id then
    await_any(key, members, now)
  end
  set_aside(key, members, hash, mine, returns, now)
  if returns then
    mine.lease = 0
  end
  local offered, count = offer(key, members, mine, before, now)
  redis.call('HSET', key, 'gen', table.concat({ hash.id, run_id, whole(hash.forgotten), whole(hash.answered) }, ' '))
  write_away(key, away_key, members, now)

  local shared = redis.call('MGET', epoch_key, clock_key, pause_key)
  local name, since = epoch(epoch_key, shared[1], known_epoch, new_epoch, now, HORIZON)
  since = complete_since(since, members, hash, now)
  write_epoch(epoch_key, name, since)
  if frame.id ~= '' then
    redis.call('EXPIRE', frame.key, DAY_AND_MORE_S)
  end
  local answer = { now, offered, count, hash.id, name, since, (offset_in(shared[2])), longest(shared, 3, 3) }
  answer[#answer + 1] = is_closed(met_key, members, hash, now)
  for other, m in pairs(members) do
    if other ~= '?' and other ~= mine.id then
      local drops = m.lease + PRESENT <= now and whole(m.drop) or IS_PRESENT
      answer[#answer + 1] = table.concat({ other, whole(m.lease), drops }, ' ')
    end
  end
  return answer
end

-- The leases of a worker that rests in many scopes, which all beat as it last did there: one question for all of them.
-- Nothing else changes. Where anything might, the scope is named, and the worker has to beat there itself.
-- keys: the clock, then the pause of each scope, then the members of each.
-- args: three doubles of each scope (the number of the beat, the lease, how many members the worker knows, itself
--   included), then its id in each.
-- answer: the offset of the exchange's clock, the scopes that are named, by their places, then the places of those that
--   pause, each with the pause's end.
function entry.renew(keys, args)
  local count, told = #args - 1, args[1]
  local function of(number) return keys[1 + count + number], args[1 + number] end
  local found = redis.call('MGET', unpack(keys, 1, 1 + count))

  local now, run_id = clock(), string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local named, paused = {}, {}
  for number = 1, count do
    local key, id = of(number)
    local beats, lease, known = struct.unpack('<ddd', told, 24 * (number - 1) + 1)
    local both = redis.call('HMGET', key, 'gen', id)
    local hash, m = read_gen(both[1]), read_member(both[2])
    local same = m and hash.run_of == run_id and m.beats > 0 and m.beats < beats and now < m.drop
    -- While others may have to come back to a hash that forgot them a beat has more to do.
    same = same and (hash.forgotten == 0 or hash.forgotten + LASTS + m.keep <= now)
    if same and redis.call('HLEN', key) == known + 1 then
      m.beats, m.lease, m.drop = beats, lease, math.max(m.drop, lease + LASTS + m.keep)
      write_member(key, id, m)
    else
      named[#named + 1] = number
    end
    local till = longest(found, 1 + number, 1 + number)
    if till > now then
      paused[#paused + 1] = number
      paused[#paused + 1] = till
    end
  end
  return { (offset_in(found[1])), named, paused }
end

-- The member was present, and uses its part no more.
-- keys: members, away.
-- args: its id.
function entry.leave(keys, args)
  local key, away_key, id = keys[1], keys[2], args[1]

  redis.call('HDEL', key, id)
  local now = clock()
  write_away(key, away_key, read_members(key, now), now)
end

-- These members are known to be dead. Before `lease + PRESENT + HORIZON` none has sent by itself; later its calls count
-- until they have left every window.
-- keys: members, away.
-- args: their ids.
function entry.bury(keys, args)
  local key, away_key, ids = keys[1], keys[2], args

  local now = clock()
  local members = read_members(key, now)
  for _, id in ipairs(ids) do
    local m = members[id]
    if m and m.lease + PRESENT <= now then
      if now < m.lease + PRESENT + HORIZON then
        members[id] = nil
        redis.call('HDEL', key, id)
      else
        m.drop = math.min(m.drop, now + m.keep)
        write_member(key, id, m)
      end
    end
  end
  write_away(key, away_key, members, now)
end
