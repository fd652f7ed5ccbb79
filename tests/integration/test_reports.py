"""What dispatchers are told of lanes, as it comes out of a fleet at work."""

from collections.abc import AsyncIterator, Callable

import pytest
from aio_pika.abc import AbstractIncomingMessage

from schemas import topology
from schemas.messages import LaneReport, decode_report
from tests.integration.fleet import Stand, wait_until

BTC = {"symbol": "BTC/USDT"}


class Heard:
    """The last report of each lane by each worker."""

    def __init__(self) -> None:
        self.lanes: dict[tuple[str, str], LaneReport] = {}

    async def take(self, message: AbstractIncomingMessage) -> None:
        """A report came."""
        report = decode_report(message.body)
        self.lanes |= {(report.worker, lane.lane): lane for lane in report.lanes}

    def any(self, lane: str, so: Callable[[LaneReport], bool]) -> bool:
        """Whether the last report of some worker says so of a lane."""
        return any(so(report) for (_, name), report in self.lanes.items() if name == lane)


@pytest.fixture
async def heard(stand: Stand) -> AsyncIterator[Heard]:
    heard = Heard()
    queue = await stand.client.channel.declare_queue(exclusive=True)
    await queue.bind(topology.REPORTS)
    tag = await queue.consume(heard.take, no_ack=True)
    yield heard
    await queue.cancel(tag)


async def test_reports_say_what_an_attempt_takes(stand: Stand, heard: Heard) -> None:
    assert (await stand.client.ask("fetch_ticker", BTC, exchanges=["kraken"])).result.ok
    await wait_until(lambda: heard.any("kraken", lambda report: report.budget_ms > 0), "a report of a call's budget")


async def test_reports_say_that_an_exchange_is_silent(stand: Stand, heard: Heard) -> None:
    await stand.simulator.fault("okx", hang=True)
    asked = await stand.client.send({"method": "fetch_ticker", "args": BTC, "exchanges": ["okx"]})

    def silent(report: LaneReport) -> bool:
        return report.unanswered == 1 and report.silent_ms > 400

    await wait_until(lambda: heard.any("okx", silent), "a report of a silent exchange")
    await stand.simulator.clear("okx")
    assert (await stand.client.answer(asked)).result.ok
    await wait_until(
        lambda: not heard.any("okx", lambda report: bool(report.unanswered or report.silent_ms)), "all calls are over"
    )
