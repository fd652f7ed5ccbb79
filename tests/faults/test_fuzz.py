"""Bad input in its short form; `make fuzz` is the long one."""

from tests.faults.fuzz import KINDS, Run
from tests.support.fleet import Stand

SEED = 1
INPUTS = 300


async def test_every_bad_input_is_answered_or_buried_and_no_service_fails(stand: Stand) -> None:
    outcome = await Run(stand, SEED).all(INPUTS)
    assert outcome.digested, (SEED, outcome.lost, outcome.stumbles, outcome.restarts)
    assert outcome.kinds.keys() >= KINDS.keys()
    assert sum(tally.inputs for tally in outcome.kinds.values()) >= INPUTS - len(KINDS)
