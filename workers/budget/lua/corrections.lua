-- How Redis's clock is corrected where it was set, and what keeps questions from being run by one that was. Stands
-- after shares.lua and uses its functions.

-- A larger step ahead is beyond doubt: by it no other member looks present that has not been answered since.
local SMALL = 2 * PRESENT
-- A doubt is of no use for longer, as its member asks again and again.
local DOUBT_KEPT_S = 60

-- A small step may be of Redis's clock, or of the clock of the one who sees it: its machine stood still together with
-- that clock, or woke and does not know to the second how long it slept. The others tell. Each says that it doubts
-- what Redis's clock shows. One that was answered by that clock since, and so believes it, shows that the caller is
-- wrong. While one looks present that did neither nobody knows; that ends after `PRESENT` at the latest.
--
-- A doubt is `<the correction's id> <its member's lease> <since when>`: it is over when one of the first two has
-- changed. By a clock that was set back a lease from before may lie ahead: none counts that was there as the doubt
-- began. Returns 'redis', 'caller', or false while nobody knows.
local function who_is_wrong(members_key, doubts_key, id, now)
  local flat, leases, latest = redis.call('HGETALL', members_key), {}, now
  for number = 1, #flat, 2 do
    local lease = tonumber(string.match(flat[number + 1], '^%d+ (%d+) %d+ %d+ %d+$'))
    leases[flat[number]] = lease
    if lease and flat[number] ~= id then
      latest = math.max(latest, lease)
    end
  end
  local function doubt_of(member)
    local frame_id, lease, since =
      string.match(redis.call('HGET', doubts_key, member) or '', '^(%x*) (%d+) (%d+)$')
    return frame_id == frame.id and tonumber(lease) == (leases[member] or 0) and tonumber(since)
  end
  local since, wrong = doubt_of(id), 'redis'
  for member, lease in pairs(leases) do
    if member ~= id and now - PRESENT < lease and lease <= now then
      if since and lease > since then
        return 'caller'
      end
      wrong = wrong and doubt_of(member) and wrong
    end
  end
  if not wrong and not since then
    redis.call('HSET', doubts_key, id, frame.id .. ' ' .. whole(leases[id] or 0) .. ' ' .. whole(latest))
    redis.call('EXPIRE', doubts_key, DOUBT_KEPT_S)
  end
  return wrong
end

-- Whether Redis answered another member by this clock lately: after a large step ahead nobody else looks present.
local function answers_another(key, id, now)
  local flat = redis.call('HGETALL', key)
  for number = 1, #flat, 2 do
    local lease = tonumber(string.match(flat[number + 1], '^%d+ (%d+) %d+ %d+ %d+$') or 0)
    if flat[number] ~= id and now - PRESENT < lease and lease <= now then
      return true
    end
  end
  return false
end

-- Redis's clock was set, as the caller's own has it. Nothing is done where another was faster, where it is the
-- caller's own that is wrong, or while nobody knows. A large step back is never the caller's own clock's, as that may
-- stand still but does not run ahead by so much; and by a clock that was set back a lease of long ago may look like a
-- late one.
-- keys: members, clock, doubts.
-- args: the caller's id, the correction's id as it found it, by how much to correct further, how uncertain that is, an
--   id for the new correction, when one last believed as the caller knows it; -1 if it did not know this correction.
-- answer: the correction's id, '?' while nobody knows, and the time from now on.
function entry.correct(keys, args)
  local members_key, clock_key, doubts_key = keys[1], keys[2], keys[3]
  local id, found_id, by, wrong, new_id = args[1], args[2], tonumber(args[3]), tonumber(args[4]), args[5]
  local believed = tonumber(args[6])

  local now, wrong_one = clock(), 'redis'
  if math.abs(by) <= SMALL then
    wrong_one = who_is_wrong(members_key, doubts_key, id, now)
  elseif by < 0 and answers_another(members_key, id, now) then
    wrong_one = 'caller'
  end
  if found_id ~= frame.id or wrong_one ~= 'redis' then
    return { wrong_one and frame.id or '?', now }
  end
  frame.correction, frame.id, frame.behind = frame.correction + by, new_id, frame.behind + wrong
  -- Redis has dropped keys that still counted; or grants were made by the clock that was behind.
  if -by >= KEPT or by > 0 and believed ~= frame.believed then
    frame.lost = clock() + HORIZON
  end
  write_frame()
  -- The exchange's clock is known by so much worse, until it is read again, which is due from now on: it is known even
  -- less if nobody else could tell that it was not the caller's own clock.
  local ahead, unsure = offset_in(redis.call('GET', clock_key))
  local value = whole(ahead) .. ':' .. whole(unsure + wrong + (math.abs(by) <= SMALL and math.abs(by) or 0))
  local left = redis.call('PTTL', clock_key)
  left = math.min(left > 0 and left or CLOCK_TTL_MS, CLOCK_DUE_MS - 1)
  redis.call('SET', clock_key, value, 'PX', whole(left))
  return { frame.id, clock() }
end

-- What the loader registers: runs an entry, unless Redis's clock was set. By a clock that was set nothing is run, so
-- that it leaves no trace.
-- keys: the entry's, then the one of the clock's correction.
-- args: the entry's, then its name, the correction's id as the caller knows it, and between which times it is run if
--   the clock was not set. In place of the id `-` for none, `?` for one that does not know the clock, and '' for a
--   caller that is no member.
-- answer: the correction's id or '', when one last believed, how far all corrections may be behind, the time before
--   which all windows count as full, the time, 1 if it was run, the entry's answer or false.
local function answer(keys, args)
  local latest, earliest = tonumber(table.remove(args)), tonumber(table.remove(args))
  local known, name, frame_key = table.remove(args), table.remove(args), table.remove(keys)

  read_frame(frame_key)
  by_member = known ~= ''
  local now = clock()
  local knows = known == (frame.id == '' and '-' or frame.id)
  local possible = now <= latest and now >= earliest
  if not knows and frame.id ~= '' then
    possible = now <= math.max(latest, frame.lost)
  end
  if not possible then
    return { frame.id, frame.believed, frame.behind, frame.lost, now, 0, false }
  end
  if by_member and not knows then
    frame.believed = now
    write_frame()
  end
  local said = entry[name](keys, args) or false
  return { frame.id, frame.believed, frame.behind, frame.lost, now, 1, said }
end
