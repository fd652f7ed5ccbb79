"""The queues and exchanges: bounded, connected, and named once."""

import pytest

from schemas import topology
from schemas.messages import RESULT_LIMIT_BYTES

QUEUES = topology.queues(["okx", "kraken.eu"])


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_every_queue_is_quorum_and_bounded_or_emptied_by_us(queue: topology.Queue) -> None:
    assert queue.arguments["x-queue-type"] == "quorum"
    if queue.name == topology.RETURNED:
        assert "x-max-length" not in queue.arguments  # what others hand over must not be refused
    else:
        assert queue.arguments["x-max-length"]
        # One message of any size fits.
        assert int(queue.arguments["x-max-length-bytes"]) > 2 * RESULT_LIMIT_BYTES
        # Only where it is documented that the oldest are dropped.
        drops = queue.name in {topology.RESULTS, topology.DEAD}
        assert queue.arguments["x-overflow"] == ("drop-head" if drops else "reject-publish")
    # At-least-once dead-lettering works only where a full queue refuses (RabbitMQ guide, quorum queues).
    if queue.arguments.get("x-dead-letter-strategy") == "at-least-once":
        assert queue.arguments["x-overflow"] == "reject-publish"
        assert queue.arguments["x-dead-letter-routing-key"] in {known.name for known in topology.QUEUES}


def test_every_feeding_exchange_is_declared_and_no_name_is_used_twice() -> None:
    exchanges = {exchange.name for exchange in topology.EXCHANGES}
    assert {queue.exchange for queue in QUEUES} - {""} <= exchanges
    assert {queue.arguments.get("x-dead-letter-exchange", "") for queue in QUEUES} - {""} <= exchanges
    assert len({queue.name for queue in QUEUES}) == len(QUEUES)


def test_what_waits_comes_back_to_the_dispatchers() -> None:
    for queue in (*topology.DELAY_QUEUES, *topology.lane_queues(["okx"])):
        assert queue.arguments["x-dead-letter-routing-key"] == topology.RETURNED
        assert queue.arguments["x-message-ttl"]


def test_lanes_have_a_live_and_a_bulk_queue() -> None:
    assert [(queue.name, queue.routing_key) for queue in topology.lane_queues(["kraken.eu"])] == [
        ("fleet.work.kraken.eu", "kraken.eu"),
        ("fleet.work.kraken.eu.bulk", "kraken.eu.bulk"),
    ]
    assert topology.work_name("okx", bulk=True) == "fleet.work." + topology.work_key("okx", bulk=True)


@pytest.mark.parametrize(
    ("wait_ms", "room"),
    [(0, "250ms"), (999, "250ms"), (1_000, "1s"), (3_999.9, "1s"), (14_000, "4s"), (59_999, "15s"), (10**9, "60s")],
)
def test_a_wait_s_room_does_not_overshoot(wait_ms: float, room: str) -> None:
    assert topology.delay_name(topology.delay_for(wait_ms)) == f"fleet.delay.{room}"


@pytest.mark.parametrize(
    "pattern",
    [
        "#",
        "*.*.*",
        "okx.fetch_ticker.*",
        "okx.#",
        "#.error",
        "*.fetch_time.ok",
        "#.fetch_time.#",
        "okx.#.*",
        "none.*.#",
    ],
)
def test_a_pattern_that_fits_results(pattern: str) -> None:
    topology.check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "okx",
        "okx.*",
        "okx.fetch_ticker",
        "okx.fetch_ticker.",
        "a.b.c.ok",
        "okx.*.fail",
        "#.fetch_time",
        "a.b.c.#.ok",
    ],
)
def test_a_pattern_that_fits_none_is_an_error(pattern: str) -> None:
    with pytest.raises(ValueError, match="fits no result"):
        topology.check_pattern(pattern)
