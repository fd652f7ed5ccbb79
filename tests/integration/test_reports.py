"""The reports about lanes, as a running fleet sends them."""

from schemas.reports import LaneReport
from tests.support.fleet import Heard, Stand, wait_until

BTC = {"symbol": "BTC/USDT"}


async def test_reports_say_what_an_attempt_takes(stand: Stand, heard: Heard) -> None:
    assert (await stand.client.ask("fetch_ticker", BTC, exchanges=["kraken"])).result.ok
    await wait_until(lambda: heard.any("kraken", lambda report: report.budget_ms > 0), "a report of a call's budget")


async def test_reports_and_metrics_say_what_became_of_each_bucket(stand: Stand, heard: Heard) -> None:
    before = await stand.metric(stand.fleet.workers, "fleet_budget_granted_total", "pair", "kraken")
    sent = [
        await stand.client.send({"method": "fetch_ohlcv", "args": BTC, "exchanges": ["kraken"]}) for _ in range(5)
    ]  # one a second
    for each in sent:
        assert (await stand.client.answer(each)).result.ok
    await wait_until(lambda: heard.bucket("kraken", "pair").granted == 5, "all calls were reported")
    pair = heard.bucket("kraken", "pair")
    assert pair.refused + pair.waited_ms > 0
    assert 0 < pair.used <= 1

    workers = stand.fleet.workers
    assert await stand.metric(workers, "fleet_budget_granted_total", "pair", "kraken") - before == 5
    assert await stand.metric(workers, "fleet_budget_bucket_wait_seconds_count", "pair", "kraken") >= 5


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


async def test_reports_say_that_a_trial_went_well(stand: Stand, heard: Heard) -> None:
    await stand.simulator.fault("okx", down="refused")
    request = {"method": "fetch_ticker", "args": BTC, "exchanges": ["okx"]}
    asked = [await stand.client.send(request) for _ in range(3)]
    await wait_until(lambda: heard.any("okx", lambda report: report.failures_in_a_row >= 3), "it failed thrice")
    assert not heard.any("okx", lambda report: bool(report.trials_ok))
    await stand.simulator.clear("okx")
    await wait_until(lambda: heard.any("okx", lambda report: report.ok >= report.trials_ok == 1), "a report of a trial")
    for each in asked:
        assert (await stand.client.answer(each)).result.ok


async def test_reports_say_when_the_last_that_failed_was_sent(stand: Stand, heard: Heard) -> None:
    await stand.simulator.fault("okx", error_rate=1.0, latency_ms=300)
    asked = await stand.client.send({"method": "fetch_ticker", "args": BTC, "exchanges": ["okx"]})

    def failed(report: LaneReport) -> bool:
        return bool(report.failed) and 300 <= report.failed_ago_ms < 10_000

    await wait_until(lambda: heard.any("okx", failed), "a report of a failure")
    await wait_until(lambda: heard.any("okx", lambda report: not report.failed_ago_ms), "a report of none")
    await stand.simulator.clear("okx")
    assert (await stand.client.answer(asked)).result.ok
