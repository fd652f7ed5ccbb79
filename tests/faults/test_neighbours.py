"""One bad client beside twenty good ones in its short form; `make neighbours` is the long one."""

from tests.faults.neighbours import Neighbours
from tests.support.fleet import Stand

SEED = 1
REQUESTS = 120
# Tests before this one may have used all that Binance allows in a minute.
WITHIN_MS = 75_000


async def test_a_bad_client_harms_no_other(stand: Stand) -> None:
    outcome = await Neighbours(stand, SEED, WITHIN_MS).run(REQUESTS)
    assert outcome.unharmed, (SEED, outcome)
