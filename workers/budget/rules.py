"""The rules of buckets and shares that the Lua library and the Python code both go by, each written once.

`LUA` is the head of the library: the same values under the names that the Lua files use.
"""

import math
from typing import Final

from ..limits.costs import Bucket, Kind

# How a bucket is packed: its kind by its place in `KINDS` from 1 on, amount, window, margin, cost, and the most that
# may be in use with the call. Redis needs six times as long to read a number from text.
KINDS: Final[tuple[Kind, ...]] = ("rolling", "fixed", "decaying", "paced")
BUCKET_FORMAT: Final = "<dddddd"
# Costs and amounts are whole thousandths.
SCALE: Final = 1000
# The largest part of a window that is given away as a margin for jitter.
MARGIN_PART: Final = 0.2
# The least margin that is kept where there is one at all; a call that arrives so late disturbs no other.
LEAST_MARGIN_US: Final = 10_000
# How late a call may leave: this part of its window, or of the time from one call to the next where it is a level
# without a margin.
LATE_PART: Final = 0.1
# In windows up to this length no call uses the room of a call without an answer, until so long after it.
SHORT_US: Final = 5_000_000
UNANSWERED_US: Final = 3_000_000
# A whole limit as parts; divisible by every number of workers up to 16.
PARTS: Final = 720_720
# A worker that Redis has not seen for so long counts as away: some beats, and a pause of its process.
PRESENT_S: Final = 1.5
# Stands in the answer to a beat where a member that is away has the time at which its part is given back.
IS_PRESENT: Final = "present"
# How far ahead Redis grants at most where workers share a scope: as long as attempts wait in a worker, and a bit more.
HORIZON_S: Final = 2.5
HORIZON_US: Final = int(HORIZON_S * 1e6)
# How long after its lease a worker may use its part.
LASTS_S: Final = 300.0
# So long before a call is due its reservation is checked again: a round trip to Redis, and a bit more.
RECHECK_S: Final = 0.02
# A pause that is too short for the exchange is doubled so often at most. Where the exchange itself named its length,
# that takes a refusal so soon after its end. What is known of a pause is kept for so long after its end.
DOUBLINGS: Final = 6
AT_ONCE_S: Final = 10.0
PAUSE_KEPT_S: Final = 60.0
# How long a measured offset of the exchange's clock from Redis's is believed.
CLOCK_TTL_S: Final = 3600.0
# When it is to be believed for less than this it is due to be measured again.
CLOCK_DUE_S: Final = CLOCK_TTL_S / 2

LUA: Final = f"""\
local KIND_NAMES = {{ {", ".join(f"'{kind}'" for kind in KINDS)} }}
local BUCKET_FORMAT, BUCKET_BYTES = '{BUCKET_FORMAT}', {8 * BUCKET_FORMAT.count("d")}
local SCALE, MARGIN_PART, LEAST_MARGIN, LATE_PART = {SCALE}, {MARGIN_PART}, {LEAST_MARGIN_US}, {LATE_PART}
local SHORT, UNANSWERED = {SHORT_US}, {UNANSWERED_US}
local PARTS, PRESENT = {PARTS}, {PRESENT_S * 1e6:.0f}
local IS_PRESENT = '{IS_PRESENT}'
local HORIZON, LASTS = {HORIZON_US}, {LASTS_S * 1e6:.0f}
local DOUBLINGS, AT_ONCE, PAUSE_KEPT = {DOUBLINGS}, {AT_ONCE_S * 1e6:.0f}, {PAUSE_KEPT_S * 1e6:.0f}
local CLOCK_TTL_MS, CLOCK_DUE_MS = {CLOCK_TTL_S * 1e3:.0f}, {CLOCK_DUE_S * 1e3:.0f}
"""


def thousandths(cost: float) -> int:
    """A cost as buckets count it."""
    return math.ceil(cost * SCALE - 1e-6)


def amount_of(bucket: Bucket) -> int:
    """What may be spent per window, thousandths."""
    return math.floor(bucket.amount * SCALE + 1e-6)


def window_us_of(bucket: Bucket) -> int:
    """The window, microseconds."""
    return math.ceil(bucket.window_s * 1e6)
