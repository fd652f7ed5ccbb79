"""When a forked worker is started again, when it is ill, and what the metrics of several are together."""

import signal

from prometheus_client.parser import text_string_to_metric_families

from workers.forked.merged import labelled, merged
from workers.forked.slot import ILL_AFTER, LEAST_WAIT_S, MOST_WAIT_S, PERMANENT_EXIT, STEADY_S, Slot

KILLED = int(signal.SIGKILL)


def code(number: int) -> int:
    """The status of a process that ended with this exit code (wait(2))."""
    return number << 8


def test_the_first_start_is_due_at_once() -> None:
    assert Slot(1).due(0.0)


def test_each_start_waits_twice_as_long_as_the_one_before() -> None:
    slot, now_s, waited = Slot(1), 100.0, list[float]()
    for pid in range(10, 20):
        slot.began(pid, now_s)
        now_s += 0.1
        waited.append(slot.ended(code(1), now_s))
        assert not slot.due(now_s)
        now_s += waited[-1]
        assert slot.due(now_s)
    assert waited == [min(MOST_WAIT_S, LEAST_WAIT_S * 2**number) for number in range(10)]
    assert slot.starts == 10


def test_one_that_had_lasted_is_started_again_soon() -> None:
    slot = Slot(1)
    for _ in range(6):
        slot.began(10, 0.0)
        slot.ended(code(1), 1.0)
    slot.began(11, 10.0)
    assert slot.ended(KILLED, 10.0 + STEADY_S) == LEAST_WAIT_S
    assert slot.why == "by SIGKILL"
    assert not slot.ill(100.0)


def test_it_is_ill_from_the_third_end_in_a_row_until_one_has_lasted() -> None:
    slot = Slot(1)
    for number in range(1, ILL_AFTER + 1):
        slot.began(10, 0.0)
        slot.ended(code(1), 1.0)
        assert bool(slot.ill(1.0)) is (number == ILL_AFTER)
    assert slot.ill(1.0) == "ended 3 times in a row, last with exit code 1, the next starts in 2 s"
    slot.began(10, 3.0)
    assert slot.ill(3.1) == "ended 3 times in a row, last with exit code 1"
    assert not slot.ill(3.0 + STEADY_S)


def test_only_its_exit_code_says_that_no_start_could_help() -> None:
    slot = Slot(1)
    for status, permanent in ((code(PERMANENT_EXIT), True), (code(1), False), (KILLED, False), (0, False)):
        slot.began(10, 0.0)
        slot.ended(status, 1.0)
        assert slot.permanent is permanent


ONE = """# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{lane="okx"} 3.0
# HELP blocked Blocked.
# TYPE blocked gauge
blocked 0.0
"""
OTHER = """# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{lane="okx",code="a } b{c d"} 5.0
# HELP rare Rare.
# TYPE rare gauge
rare{lane="a"} 1.0
"""


def test_every_family_stands_once_with_all_samples() -> None:
    assert merged({"1": ONE, "2": OTHER}) == (
        "# HELP calls_total Calls.\n"
        "# TYPE calls_total counter\n"
        'calls_total{process="1",lane="okx"} 3.0\n'
        'calls_total{process="2",lane="okx",code="a } b{c d"} 5.0\n'
        "# HELP blocked Blocked.\n"
        "# TYPE blocked gauge\n"
        'blocked{process="1"} 0.0\n'
        "# HELP rare Rare.\n"
        "# TYPE rare gauge\n"
        'rare{process="2",lane="a"} 1.0\n'
    )


def test_prometheus_reads_it() -> None:
    families = {each.name: each for each in text_string_to_metric_families(merged({"1": ONE, "2": OTHER}))}
    assert [(sample.labels, sample.value) for sample in families["calls"].samples] == [
        ({"process": "1", "lane": "okx"}, 3.0),
        ({"process": "2", "lane": "okx", "code": "a } b{c d"}, 5.0),
    ]


def test_a_value_may_hold_what_labels_begin_with() -> None:
    assert labelled('up 1.0 # {trace="x"} 1', "3") == 'up{process="3"} 1.0 # {trace="x"} 1'


def test_nothing_is_nothing() -> None:
    assert not merged({})
