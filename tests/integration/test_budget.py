"""Budgets on a real Redis, in real time: shared buckets, pauses, many processes on one bucket, a Redis that forgets."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from redis.crc import key_slot

from deploy.servers import Redis
from schemas.runtime.store import connect
from tests.support.budgets import bucket, charge, emptied, grants
from workers.budget.budget import Budget
from workers.budget.grants import Grant, Refusal
from workers.budget.ledger import Ledger
from workers.limits.costs import load

pytestmark = pytest.mark.both_stores


@pytest_asyncio.fixture(loop_scope="function")
async def client(redis_url: str) -> AsyncIterator[Any]:
    async with emptied(redis_url) as client:
        yield client


async def test_all_workers_share_one_budget_but_not_with_another_address(client: Any) -> None:
    calls = [charge(bucket(10, 60))]
    assert await grants(Budget(Ledger(client, "x:1.1.1.1")), calls, at_most=6) == 6
    assert await grants(Budget(Ledger(client, "x:1.1.1.1")), calls) == 4
    assert await grants(Budget(Ledger(client, "x:2.2.2.2")), calls) == 10
    assert await grants(Budget(Ledger(client, "y:1.1.1.1")), calls) == 10


async def test_an_account_shares_its_buckets_over_all_addresses(client: Any) -> None:
    calls = [charge(bucket(10, 60, scope="account"), key="private"), charge(bucket(7, 60))]
    assert await grants(Budget(Ledger(client, "x:1.1.1.1", account="a")), calls) == 7
    assert await grants(Budget(Ledger(client, "x:2.2.2.2", account="a")), calls) == 3
    assert await grants(Budget(Ledger(client, "x:2.2.2.2", account="b")), calls) == 4


async def test_bulk_leaves_the_reserve_to_live(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(100, 60))]
    assert await grants(budget, calls, bulk=True) == 80
    refused = await budget.reserve(calls, max_wait_s=60, bulk=True)
    assert isinstance(refused, Refusal)
    assert refused.reason == "budget"
    assert await grants(budget, calls) == 20


async def test_bulk_gets_its_turn_in_a_bucket_of_one_when_that_is_empty(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(1, 60))]
    assert await grants(budget, calls, bulk=True) == 1
    assert await grants(budget, calls) == 0


async def test_live_never_waits_behind_bulk(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(10, 60))]
    assert await grants(budget, calls) == 10
    for _ in range(5):
        assert isinstance(await budget.reserve(calls, max_wait_s=600, bulk=True), Refusal)
    answer = await budget.reserve(calls, max_wait_s=600)
    assert isinstance(answer, Grant)
    assert answer.delay_us <= 60_000_000


async def test_it_is_known_which_bucket_a_call_waits_for(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(100, 60), key="wide"), charge(bucket(2, 60), key="narrow")]
    answers = [await budget.reserve(calls, max_wait_s=max_wait_s) for max_wait_s in (0, 0, 60, 0)]
    assert [answer.held_by for answer in answers] == [None, None, 1, 1]
    await budget.pause(200, "429")
    assert (await budget.reserve(calls, max_wait_s=0)).held_by is None


async def test_a_bucket_s_own_pause_is_seen_in_its_use(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(100, 60), key="b"), charge(msgspec.structs.replace(bucket(100, 60), name="other"), key="o")]
    assert await grants(budget, calls, at_most=1) == 1
    await budget.pause(60, "50011", calls[:1])
    uses = await budget.usage()
    assert 50 < uses["b"].paused_s <= 60
    assert uses["other"].paused_s == 0


async def test_a_pause_stops_all_workers_of_the_scope_and_is_never_made_shorter(client: Any) -> None:
    one, two = Budget(Ledger(client, "x:1")), Budget(Ledger(client, "x:1"))
    keyed, elsewhere = Budget(Ledger(client, "x:1", account="a")), Budget(Ledger(client, "x:2"))
    calls = [charge(bucket(100, 60))]
    await one.pause(60, "429 Retry-After: 60")
    await two.pause(1, "short")
    for budget in (one, two, keyed):
        answer = await budget.reserve(calls, max_wait_s=2)
        assert isinstance(answer, Refusal)
        assert answer.reason == "paused"
        assert 50 < answer.wait_s <= 60
        assert 50 < await budget.paused() <= 60
    assert await grants(elsewhere, calls, at_most=1) == 1
    assert await elsewhere.paused() == 0


async def test_a_pause_of_one_endpoint_leaves_the_others(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    limit = bucket(100, 60)
    await budget.pause(60, "50011", [charge(limit, key="candles")])
    assert await grants(budget, [charge(limit, key="candles")], at_most=1) == 0
    assert await grants(budget, [charge(limit, key="trades")], at_most=1) == 1


async def test_a_pause_set_while_a_call_waits_holds_it(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(1, 0.5))]
    assert await grants(budget, calls) == 1
    waiting = asyncio.create_task(budget.acquire(calls, max_wait_s=5))
    while isinstance(await budget.reserve(calls, max_wait_s=0.5), Grant):
        pass  # Until the other one has its place, a second before ours.
    await budget.pause(60, "418")
    answer = await waiting
    assert isinstance(answer, Refusal)
    assert answer.reason == "paused"


async def test_all_keys_of_an_exchange_lie_in_one_slot_of_a_cluster(client: Any) -> None:
    limits = [charge(bucket(10, 60), key="Trades:{XBT}USD"), charge(bucket(10, 60, scope="account"), key="a:b")]
    limits.append(charge(bucket(10, 60, kind="fixed"), key="f"))
    for egress in ("10.0.0.1", "http://user:secret@[::1]:8080", "http://proxy/{x}?token=secret"):
        budget = Budget(Ledger(client, f"x:{egress}", account="api-key{1}"))
        answer = await budget.reserve(limits, max_wait_s=60)
        assert isinstance(answer, Grant)
        await budget.set_clock(1.0)
        await budget.observe(limits[0], answer.ranks[0], answer, 9, late_us=0, span_s=60)
        await budget.limited(limits, answer)
        await budget.pause(1, "all")
        await budget.pause(1, "some", limits)
    keys: list[bytes] = [key async for key in client.scan_iter("*")]
    assert {key.split(b":")[-1] for key in keys} >= {b"clock", b"epoch", b"spread", b"pause", b"learned"}
    assert len({key_slot(key) for key in keys}) == 1
    assert not [key for key in keys if b"secret" in key or b"api-key" in key]


async def test_a_call_of_several_buckets_waits_for_the_last_and_takes_from_all_or_none(
    client: Any,
) -> None:
    budget = Budget(Ledger(client, "x:1"))
    wide, narrow = charge(bucket(100, 60), key="wide"), charge(bucket(1, 60), key="narrow")
    assert await grants(budget, [wide, narrow]) == 1
    assert await grants(budget, [wide]) == 99


async def test_redis_away_is_a_refusal() -> None:
    client: Any = connect("redis://127.0.0.1:1/0", timeout_s=0.5)
    budget = Budget(Ledger(client, "x:1"))
    answer = await budget.reserve([charge(bucket(1, 60))], max_wait_s=1)
    assert isinstance(answer, Refusal)
    assert answer.reason == "redis_lost"
    assert await budget.paused() == 0
    await client.aclose()


async def test_the_function_is_loaded_again_into_a_redis_that_forgot_it(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(10, 60))]
    assert await grants(budget, calls, at_most=2) == 2
    await client.function_flush("SYNC")
    assert await grants(budget, calls) == 8


async def test_no_password_of_a_proxy_gets_into_redis(client: Any) -> None:
    await grants(Budget(Ledger(client, "x:http://user:secret@proxy:8080", account="key{1}")), [charge(bucket(1, 60))])
    keys = [key async for key in client.scan_iter("fleet:*")]
    assert keys
    assert not [key for key in keys if b"secret" in key or b"user" in key]


async def test_real_tables_of_all_exchanges_are_granted(client: Any) -> None:
    for exchange, api, path in (
        ("binance", ("public",), "ticker/24hr"),
        ("okx", ("public",), "market/ticker"),
        ("htx", ("spot", "public"), "market/depth"),
        ("coinbase", ("v2", "public"), "time"),
        ("kraken", ("public",), "OHLC"),
        ("bitstamp", ("public",), "anything"),
    ):
        charges = load(exchange, 100).charges(api, "GET", path, {"pair": "XBTUSDT"}, 1)
        # A fixed window's boundary may be this instant: then it is granted just after.
        assert isinstance(await Budget(Ledger(client, f"{exchange}:1")).reserve(charges, max_wait_s=1), Grant)


def _work(url: str) -> list[tuple[int, int, int]]:
    """One process: many tasks ask for calls of different weights."""
    return asyncio.run(_ask(url))


async def _ask(url: str) -> list[tuple[int, int, int]]:
    client = connect(url, timeout_s=5)
    budget = Budget(Ledger(client, "x:1"))
    limit = bucket(40, 0.25)
    sent: list[tuple[int, int, int]] = []

    async def ask(cost: int) -> None:
        for _ in range(5):
            answer = await budget.acquire([charge(limit, cost)], max_wait_s=60)
            assert isinstance(answer, Grant)
            sent.append((answer.at_us, cost, time.time_ns() // 1000))

    await asyncio.gather(*(ask(cost) for cost in (1, 1, 2, 3, 10)))
    await client.aclose()
    return sent


async def test_processes_side_by_side_are_never_above_and_none_starves(redis_url: str, client: Any) -> None:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        logs = await asyncio.gather(*(loop.run_in_executor(pool, _work, redis_url) for _ in range(4)))
    granted = sorted(entry for log in logs for entry in log)
    assert len(granted) == 4 * 5 * 5
    for start, *_ in granted:
        assert sum(cost for at, cost, _ in granted if start <= at < start + 250_000) <= 40
    # Nobody sends before the instant that was reserved (Redis and we read the same clock here).
    assert all(sent >= at for at, _, sent in granted)


async def test_calls_asked_for_together_are_served_in_order_and_a_cancelled_one_delays_none(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(1, 0.01))]
    tasks = [asyncio.create_task(budget.reserve(calls, max_wait_s=60)) for _ in range(200)]
    await asyncio.sleep(0)
    for task in tasks[10::10]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    instants = [answer.at_us for answer in answers if isinstance(answer, Grant)]
    assert len(instants) == 200 - 19
    assert instants == sorted(set(instants))
    assert isinstance(await budget.reserve(calls, max_wait_s=60), Grant)


async def test_an_emptied_redis_counts_as_full_for_workers_that_knew_it(client: Any) -> None:
    calls = [
        charge(bucket(10, 60)),
        charge(bucket(10, 60, kind="fixed"), key="f"),
        charge(bucket(1, 60, kind="paced"), key="p"),
    ]
    for number, one in enumerate(calls):
        old, other = Budget(Ledger(client, f"x:{number}")), Budget(Ledger(client, f"x:{number}"))
        assert await grants(old, [one], at_most=1) == 1
        assert isinstance(await other.reserve([one], max_wait_s=0), Grant | Refusal)
        await client.flushdb()
        # One that has just started can't know that there was anything; the first that does tells all.
        new = Budget(Ledger(client, f"x:{number}"))
        assert await grants(new, [one], at_most=1) == 1
        for budget in (old, other, new):
            assert await grants(budget, [one], at_most=1) == 0
        # It ends: a window later there is room again.
        answer = await new.reserve([one], max_wait_s=200)
        assert isinstance(answer, Grant)
        assert answer.delay_us <= 130_000_000


async def test_a_restarted_redis_counts_as_full_even_when_it_remembers(redis_server: Redis, client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(10, 60))]
    assert await grants(budget, calls, at_most=1) == 1
    redis_server.kill()
    lost = await budget.reserve(calls, max_wait_s=0)
    assert isinstance(lost, Refusal)
    assert lost.reason == "redis_lost"
    await redis_server.start()
    answer = await budget.reserve(calls, max_wait_s=0)
    assert isinstance(answer, Refusal)
    assert answer.reason == "budget"
    assert 50 < answer.wait_s <= 61


async def test_a_lost_connection_alone_costs_nothing(client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(10, 60))]
    assert await grants(budget, calls, at_most=4) == 4
    await client.client_kill_filter(skipme=False)
    answers = [await budget.reserve(calls, max_wait_s=0) for _ in range(12)]
    granted = [answer for answer in answers if isinstance(answer, Grant)]
    assert 4 <= len(granted) <= 6


async def test_a_pause_set_while_redis_was_away_is_published_when_it_is_back(redis_server: Redis, client: Any) -> None:
    budget = Budget(Ledger(client, "x:1"))
    calls = [charge(bucket(10, 60))]
    redis_server.kill()
    await budget.pause(60, "418")
    assert await budget.paused() > 50
    await redis_server.start()
    answer = await budget.reserve(calls, max_wait_s=0)
    assert isinstance(answer, Refusal)
    assert answer.reason == "paused"
    other = await Budget(Ledger(client, "x:1")).reserve(calls, max_wait_s=0)
    assert isinstance(other, Refusal)
    assert other.reason == "paused"
