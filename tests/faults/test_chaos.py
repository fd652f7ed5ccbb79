"""The chaos run in its short form; `make chaos` is the long one."""

from pathlib import Path

from tests.faults import chaos
from tests.faults.schedule import ALONE, KINDS, draw

SEED = 3
KINDS_IN_SHORT = (
    "worker_killed",
    "worker_told_to_stop",
    "dispatcher_killed",
    "rabbitmq_killed",
    "rabbitmq_frozen",
    "rabbitmq_cut_off",
    "redis_killed",
    "exchange_hangs",
    "bad_messages",
)


def test_a_schedule_follows_from_its_seed_and_has_every_kind() -> None:
    schedule = draw(1, 200, 4)
    assert schedule == draw(1, 200, 4)
    assert schedule != draw(2, 200, 4)
    assert {fault.kind for fault in schedule} == set(ALONE)
    assert {fault.kind for fault in draw(1, 200, 4, tuple(KINDS))} == set(KINDS)


async def test_no_request_is_lost_whatever_dies(tmp_path: Path) -> None:
    verdict = await chaos.run(SEED, 600, tmp_path, per_s=20, every_s=3, kinds=KINDS_IN_SHORT)
    assert verdict.ok, "\n".join([f"seed {SEED}, schedule, record and logs: {tmp_path}", *verdict.lines()])
