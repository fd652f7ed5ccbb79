"""The clock that the fleet measures time by goes on while the machine is suspended."""

import ast
from pathlib import Path
from typing import Final

import pytest

from schemas.runtime.clock import clock_s
from schemas.runtime.standstill import Standstills
from tests.support.suspended import Machine
from workers.budget.ledger import Ledger
from workers.budget.membership import Membership
from workers.budget.pauses import Pauses
from workers.budget.protocol import Beaten
from workers.budget.rules import LASTS_S, PARTS

HOME: Final = Path(__file__).parents[2]
# Where time in which the machine sleeps does not count, and why.
SLEEP_IS_NOT_COUNTED: Final = {
    "schemas/runtime/clock.py": "itself, where there is no other",
    "schemas/runtime/amqp/link.py": "for how long it has tried to connect",
    "schemas/runtime/deliveries.py": "for how long nothing came, though it could have",
    "schemas/runtime/tasks.py": "for how long tasks have had time to end",
    "schemas/operator/picture.py": "reports lie unread meanwhile",
    "schemas/operator/screen.py": "the same",
    "workers/forked/parent.py": "how its processes run: they sleep with it",
    "workers/forked/port.py": "the same",
    "workers/reports.py": "the part of a core that is used while one can be",
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_time_passes_while_the_machine_is_suspended(machine: Machine) -> None:
    before_s = clock_s()
    machine.slept_s = 400.0
    assert clock_s() - before_s >= 400.0


def test_a_worker_that_was_suspended_for_longer_than_its_lease_uses_no_part(machine: Machine) -> None:
    member, now_us = Membership(), 10**15
    member.redis.answered(clock_s(), now_us, asked_s=clock_s())
    for _ in range(3):  # the others leave it a half
        member.beat([])
        member.answered(Beaten(now_us, PARTS // 2, 2, "a", "b", 0, 0, 0, is_closed=False, others=[]))
    assert member.may_use(*member.now_us())
    machine.slept_s = LASTS_S + 1.0
    assert not member.may_use(*member.now_us())
    member.lost(0.0, {}, None)
    assert member.share is not None
    assert not member.is_counted_away, "others have its part by now"


def test_a_worker_that_was_suspended_claims_no_part_when_it_is_back(machine: Machine) -> None:
    member, now_us = Membership(), 10**15
    member.redis.answered(clock_s(), now_us, asked_s=clock_s())
    for _ in range(3):
        member.beat([])
        member.answered(Beaten(now_us, PARTS // 2, 2, "a", "b", 0, 0, 0, is_closed=False, others=[]))
    assert member.beat([]).part == PARTS // 2
    machine.slept_s = LASTS_S + 1.0
    assert not member.may_renew
    assert member.beat([]).part == 0


def test_a_suspension_is_a_standstill(machine: Machine) -> None:
    stills, before_s = Standstills(), clock_s()
    machine.slept_s = 400.0
    assert stills.still_s(before_s, clock_s()) >= 399.0
    stills.tick()
    assert stills.still_s(before_s, clock_s()) >= 399.0


def test_a_pause_ends_while_the_machine_is_suspended(machine: Machine) -> None:
    pauses = Pauses()
    pauses.keep(["a"], 60.0)
    assert pauses.left_s(["a"])
    machine.slept_s = 61.0
    assert not pauses.left_s(["a"])


def test_all_that_a_budget_measures_is_measured_by_that_clock() -> None:
    ledger = Ledger(None, "okx:default")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert ledger.now_s is Membership().clock is clock_s


def _uses_monotonic(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("monotonic", "monotonic_ns")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_the_clock_that_stops_is_read_only_where_sleep_does_not_count() -> None:
    files = [path for name in ("schemas", "dispatcher", "workers") for path in (HOME / name).rglob("*.py")]
    assert {str(path.relative_to(HOME)) for path in files if _uses_monotonic(path)} == set(SLEEP_IS_NOT_COUNTED)
