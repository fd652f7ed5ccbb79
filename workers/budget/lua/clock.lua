-- The clock of all budgets of an exchange: Redis's, corrected by how far it was set while the fleet ran. Stands first.
--
-- The machine's clock may be set: by an operator, by NTP, by a fail-over to another machine. Grants made by the old
-- clock would then look long past, or lie far ahead. The workers' monotonic clocks are not set: a worker that gets an
-- answer with an impossible time says by how much it is wrong, and that is taken off from then on (`entry.correct` in
-- corrections.lua). The corrected clock is never ahead of the one before it, so no window gets shorter.
--
-- A worker that does not know the latest correction, or has not met this Redis, is answered by what the clock shows,
-- although it may have been set back meanwhile. What it is granted then looks older than it is once the clock is moved
-- ahead again. So Redis keeps when that was last (`believed`), and every answer says it: a worker that moves the clock
-- ahead says what it knew of it, and where that has changed all windows count as full (`lost`). Others then take the
-- clock that is ahead of what they know; without that they move it back.
--
-- The loader defines `clock()`, the machine's clock in microseconds since 1970, and the constants of rules.py.

-- Keys are kept for so long beyond their use: Redis drops keys by the machine's clock.
local KEPT = 60000000
local DAY_AND_MORE_S = 90000

-- `<correction>:<id>:<time before which grants may have been lost>:<when one last believed>:<how far all corrections
-- together may be behind>`; the id is that of the latest correction.
local frame = { key = '', id = '', correction = 0, lost = 0, believed = 0, behind = 0 }

-- Whether the caller is one of the workers that share the scope.
local by_member = false

local machine_clock = clock
local function clock() -- luacheck: ignore 411
  return machine_clock() + frame.correction
end

local function read_frame(key)
  local correction, id, lost, believed, behind =
    string.match(redis.call('GET', key) or '', '^(-?%d+):(%x*):(%d+):?(%d*):?(%d*)$')
  frame.key, frame.id, frame.correction, frame.lost = key, id or '', tonumber(correction or 0), tonumber(lost or 0)
  frame.believed, frame.behind = tonumber(believed) or 0, tonumber(behind) or 0
end

local function write_frame()
  local value = string.format(
    '%d:%s:%d:%d:%d', frame.correction, frame.id, frame.lost, frame.believed, frame.behind
  )
  redis.call('SET', frame.key, value, 'EX', DAY_AND_MORE_S)
end
