-- The clock of all budgets of an exchange: Redis's, and by how much it was set while the fleet ran. Stands first.
--
-- The machine's clock may be set: by an operator, by NTP, by a fail-over to another machine. What was granted by the old
-- clock would then count as long gone, or hold everything up until the new one is there. The workers' monotonic clocks
-- are not set: who finds that an answer's time can't be says by how much, and from then on that is taken off again
-- (`run.set` in shares.lua). The corrected clock is never ahead of the one before, so that no window gets shorter.
--
-- `clock()`, microseconds since 1970 by the machine, is defined by the loader.

-- What was granted is kept for so long beyond its use: Redis drops keys by the machine's clock.
local KEPT = 60000000

-- `<correction>:<id>:<until when what was granted may be forgotten>`; the id is that of the latest correction.
local frame = { key = '', id = '', correction = 0, lost = 0 }

local machine_clock = clock
local function clock()
  return machine_clock() + frame.correction
end

local function read_frame(key)
  local correction, id, lost = string.match(redis.call('GET', key) or '', '^(-?%d+):(%x+):(%d+)$')
  frame.key, frame.id, frame.correction, frame.lost = key, id or '', tonumber(correction or 0), tonumber(lost or 0)
end

local function write_frame()
  local value = string.format('%d:%s:%d', frame.correction, frame.id, frame.lost)
  redis.call('SET', frame.key, value, 'EX', 90000)
end
