"""Accounts: signed reads on the simulator, budgets by account and by address, and secrets that show nowhere."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.local import Services, simulated
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.accounts import ACCOUNTS, Account
from deploy.simulator.ccxt_config import ccxt_config
from deploy.simulator.process import Simulator
from schemas.messages import ErrorCode
from schemas.runtime.store import connect
from schemas.runtime.tasks import end_tasks
from tests.support.exchange_lanes import Lanes, call
from tests.support.fleet import QUICK, Client, opened, wait_until
from workers.budget.budget import Budget
from workers.budget.grants import Grant, Refusal
from workers.budget.ledger import Ledger
from workers.budget.membership import BEAT_EVERY_S, Membership
from workers.budget.rules import PARTS
from workers.exchange.errors import judge
from workers.exchange.lane_exchange import LaneExchange
from workers.limits.costs import Bucket, Charge, Scope

ANNA, BORIS = ACCOUNTS.values()
SCOPES: tuple[Scope, ...] = ("egress", "account")
SIGNING = ("binance", "okx", "kraken")
BTC: dict[str, Any] = {"symbol": "BTC/USDT"}
SECRETS = [part for account in ACCOUNTS.values() for part in (account.key, account.secret, account.passphrase)]


async def balance(lane: LaneExchange, account: Account) -> float:
    found = await lane.call("fetch_balance", {}, call(lane.exchange, account=account.name))
    return float(found["BTC"]["total"])


@pytest.mark.parametrize("exchange", SIGNING)
async def test_each_account_reads_its_own(lanes: Lanes, exchange: str) -> None:
    async with Simulator(exchanges=[exchange]) as simulator:
        settings = ccxt_config(exchange, simulator.urls[exchange])
        for account in (ANNA, BORIS):
            lane, budget = lanes.lane(exchange, settings, account=account)
            await lane.open()
            assert {"fetch_balance", "fetch_open_orders", "fetch_ticker"} <= set(lane.methods)
            assert await balance(lane, account) == float(account.btc)
            scopes = {charge.bucket.scope for charge in budget.granted[-1]}
            assert scopes == {"egress" if exchange == "binance" else "account"}  # Binance counts reads by address
        assert (await simulator.counters())["violations"] == 0


async def test_without_a_named_account_nothing_is_signed(lanes: Lanes) -> None:
    async with Simulator(exchanges=["okx"]) as simulator:
        settings = ccxt_config("okx", simulator.urls["okx"])
        lane, _ = lanes.lane("okx", settings, account=ANNA)
        await lane.open()
        await lane.call("fetch_ticker", BTC, call("okx"))
        for account, code in ((None, ErrorCode.METHOD_NOT_ALLOWED), ("boris", ErrorCode.NOT_SUPPORTED)):
            attempt = call("okx", account=account)
            with pytest.raises(Exception) as raised:
                await lane.call("fetch_balance", {}, attempt)
            assert judge(raised.value, attempt).code is code
            assert attempt.http_calls == 0
        endpoints = (await simulator.counters())["exchanges"]["okx"]["endpoints"]
        assert not any("account" in name for name in endpoints)


@pytest.mark.parametrize("exchange", SIGNING)
async def test_a_wrong_secret_is_the_operator_s_and_does_not_show(lanes: Lanes, exchange: str) -> None:
    async with Simulator(exchanges=[exchange]) as simulator:
        wrong = ANNA._replace(secret=BORIS.secret)
        lane, _ = lanes.lane(exchange, ccxt_config(exchange, simulator.urls[exchange]), account=wrong)
        await lane.open()
        attempt = call(exchange, account=wrong.name)
        with pytest.raises(Exception) as raised:
            await lane.call("fetch_balance", {}, attempt)
        verdict = judge(raised.value, attempt, lane.redactor.hide)
        assert verdict.code is ErrorCode.AUTHENTICATION
        for secret in SECRETS:
            assert secret not in verdict.message
        assert lane.redactor.hide(f"key {wrong.key} and {wrong.secret}") == "key … and …"


async def test_a_clock_that_drifts_is_measured_and_the_read_repeated(lanes: Lanes) -> None:
    async with Simulator(exchanges=["binance"]) as simulator:
        lane, budget = lanes.lane("binance", ccxt_config("binance", simulator.urls["binance"]), account=ANNA)
        await lane.open()
        await balance(lane, ANNA)
        await simulator.ask("PUT", "/clock", {"advance_s": 12})
        attempts = [call("binance", account=ANNA.name) for _ in range(5)]
        await asyncio.gather(*(lane.call("fetch_balance", {}, attempt) for attempt in attempts))
        # Each was refused and repeated; one of them asked for the time.
        assert sorted(attempt.http_calls for attempt in attempts) == [2, 2, 2, 2, 3]
        attempt = call("binance", account=ANNA.name)
        await lane.call("fetch_balance", {}, attempt)
        assert attempt.http_calls == 1
        counters = await simulator.counters()
        assert counters["violations"] == 0
        assert counters["exchanges"]["binance"]["requests"] == len(budget.granted)


REFUSALS = {
    "binance": ("/api/v3/account", '{"code":-1021,"msg":"Timestamp for this request is outside of the recvWindow."}'),
    "okx": ("/account/balance", '{"code":"50102","msg":"Timestamp request expired","data":[]}'),
    "kraken": ("/private/", '{"error":["EAPI:Invalid nonce"]}'),
}


@pytest.mark.parametrize("exchange", SIGNING)
async def test_a_clock_that_stays_wrong_is_the_operator_s_and_public_reads_go_on(lanes: Lanes, exchange: str) -> None:
    path, body = REFUSALS[exchange]
    async with Simulator(exchanges=[exchange]) as simulator:
        lane, _ = lanes.lane(exchange, ccxt_config(exchange, simulator.urls[exchange]), account=ANNA)
        await lane.open()
        await simulator.fault(exchange, said={path: {"body": body}})
        attempt = call(exchange, account=ANNA.name)
        with pytest.raises(Exception) as raised:
            await lane.call("fetch_balance", {}, attempt)
        verdict = judge(raised.value, attempt)
        assert verdict.code is ErrorCode.CLOCK
        assert "Operator: synchronise" in verdict.message
        assert attempt.http_calls == 3
        attempt = call(exchange)
        assert await lane.call("fetch_ticker", BTC, attempt)
        assert attempt.http_calls == 1


@pytest.mark.parametrize("exchange", ["binance", "okx", "htx", "coinbase", "kraken", "bybit", "kucoin", "gate"])
async def test_signatures_are_made_by_the_exchange_s_clock(lanes: Lanes, exchange: str) -> None:
    """Every way in which the eight exchanges' classes write the time into what they sign."""
    lane, _ = lanes.lane(exchange, {}, account=ANNA._replace(secret="MHQCAQEEIA=="))
    keyed: Any = lane._keyed  # pyright: ignore[reportPrivateUsage]
    public: Any = lane._ccxt  # pyright: ignore[reportPrivateUsage]
    keyed.signing_clock.ahead_s = 3_600.0
    for name, per_s in (("milliseconds", 1e3), ("microseconds", 1e6), ("seconds", 1), ("nonce", 1e3)):
        ahead = getattr(keyed, name)() - getattr(public, name)()
        assert ahead / per_s == pytest.approx(3_600, abs=30), name


async def test_lanes_share_by_address_and_by_account(lanes: Lanes) -> None:
    """OKX allows 10 balances in 2 s of an account, and 100 trades in 2 s from an address."""
    async with Simulator(exchanges=["okx"]) as simulator:
        settings = ccxt_config("okx", simulator.urls["okx"])

        def lane(account: Account, address: str) -> LaneExchange:
            egress = lanes.egress(local_addr=address)
            return lanes.lane("okx", settings, scope=address, egress=egress, account=account)[0]

        one, two = lane(ANNA, "127.0.0.2"), lane(ANNA, "127.0.0.3")
        also_one, other = lane(BORIS, "127.0.0.2"), lane(BORIS, "127.0.0.3")
        for each in (one, two, also_one, other):
            await each.open()

        async def granted(method: str, args: dict[str, Any], who: list[LaneExchange]) -> int:
            """How many of as many calls as each lane might make alone are let through at once."""

            async def ask(lane: LaneExchange) -> bool:
                account = None if method == "fetch_trades" else lane.config.account
                try:
                    await lane.call(method, args, call("okx", max_wait_s=0.2, account=account))
                except Exception:
                    return False
                return True

            return sum(await asyncio.gather(*(ask(each) for each in who for _ in range(12))))

        # The same account from two addresses: one budget. Two accounts: two.
        assert 5 <= await granted("fetch_balance", {}, [one, two]) <= 12
        before = await granted("fetch_open_orders", {}, [one, other])
        assert before == 24
        counters = (await simulator.counters())["exchanges"]["okx"]
        assert counters["violations"] == 0
        assert set(counters["clients"]) == {"127.0.0.2", "127.0.0.3"}


async def test_budgets_of_one_address_are_one_and_of_two_are_two(lanes: Lanes) -> None:
    """Kraken allows one ticker a second from an address, whichever lane or account it is for."""
    async with Simulator(exchanges=["kraken"]) as simulator:
        settings = ccxt_config("kraken", simulator.urls["kraken"])
        egress, elsewhere = lanes.egress(local_addr="127.0.0.2"), lanes.egress(local_addr="127.0.0.3")
        same, _ = lanes.lane("kraken", settings, scope="127.0.0.2", egress=egress)
        also, _ = lanes.lane("kraken", settings, scope="127.0.0.2", egress=egress, account=ANNA)
        other, _ = lanes.lane("kraken", settings, scope="127.0.0.3", egress=elsewhere)
        for each in (same, also, other):
            await each.open()
        attempts = [call("kraken") for _ in range(6)]
        who = [same, also, same, also, other, other]
        await asyncio.gather(
            *(lane.call("fetch_ticker", BTC, attempt) for lane, attempt in zip(who, attempts, strict=True))
        )
        waited_s = [attempt.waited_s for attempt in attempts]
        assert max(waited_s[:4]) > 2.9  # four calls a second apart
        assert max(waited_s[4:]) < 2.9  # two
        assert (await simulator.counters())["violations"] == 0


def charges(scope: Scope) -> list[Charge]:
    """A call that one bucket of this scope is charged for."""
    limit = Bucket(name=scope, kind="rolling", amount=60, window_s=0.5, margin_ms=50, scope=scope, source="")
    return [Charge(limit, 1.0, scope)]


async def granted(budget: Budget, scope: Scope) -> bool:
    """Whether such a call would be granted now."""
    return isinstance(await budget.acquire(charges(scope), max_wait_s=0.1), Grant)


@asynccontextmanager
async def followed(url: str, scope: str, *, elsewhere: bool) -> AsyncGenerator[Budget, None]:
    """An account's budget as one worker keeps it up."""
    async with connect(url, timeout_s=0.5) as client:
        member = Membership()
        budget = Budget(Ledger(client, scope, account=ANNA.key, member=member), elsewhere=elsewhere)
        task = asyncio.create_task(budget.follow(BEAT_EVERY_S))
        try:
            for name in SCOPES:
                await wait_until(partial(granted, budget, name), "a grant by Redis")
            limits = [charge.bucket for name in SCOPES for charge in charges(name)]
            await wait_until(lambda: member.keeps(limits) and member.part == PARTS, "Redis knows what it uses")
            yield budget
        finally:
            await end_tasks([task])


async def test_an_account_used_from_two_addresses_has_no_share_while_redis_is_away(
    redis_server: Redis, redis_url: str
) -> None:
    """The workers of one address don't know of those at others: the sum of their shares would pass the limit."""
    async with (
        followed(redis_url, "x:1", elsewhere=False) as alone,
        followed(redis_url, "y:1", elsewhere=True) as shared,
    ):
        redis_server.kill()
        for budget in (alone, shared):
            await wait_until(lambda budget=budget: budget.own_part == 1, "it is on its own")  # type: ignore[misc]
            await wait_until(partial(granted, budget, "egress"), "a grant from the address's share")
        assert await granted(alone, "account")
        refusal = await shared.acquire(charges("account"), max_wait_s=0.1)
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "redis_lost"
        await redis_server.start()
        await wait_until(partial(granted, shared, "account"), "a grant by Redis again")


async def test_a_fleet_with_accounts(
    rabbitmq: RabbitMQ, vhost: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment and files to the answer. Neither logs, nor Redis, nor results hold a secret."""
    monkeypatch.setenv("ANNA_KEY", ANNA.key)
    for name, text in (("anna", ANNA.secret), ("key", BORIS.key), ("boris", BORIS.secret)):
        (tmp_path / name).write_text(text + "\n")
    async with Simulator(exchanges=["kraken"]) as simulator:
        config: dict[str, Any] = {**simulated(simulator.urls), **QUICK}
        lane = config["lanes"]["kraken"]
        config["lanes"] |= {f"kraken.{account.name}": {**lane, "account": account.name} for account in (ANNA, BORIS)}
        config["accounts"] = {
            "anna": {"api_key": {"env": "ANNA_KEY"}, "secret": {"file": str(tmp_path / "anna")}},
            "boris": {"api_key": {"file": str(tmp_path / "key")}, "secret": {"file": str(tmp_path / "boris")}},
        }
        fleet = Services(tmp_path / "fleet", config, broker_url=vhost, redis_url=redis_url)
        async with fleet, Client.on(vhost) as client:
            await opened(fleet)
            for account in (ANNA, BORIS):
                answer = await client.ask("fetch_balance", account=account.name)
                assert answer.result.ok, answer
                assert answer.result.lane == f"kraken.{account.name}"
                assert answer.result.data["BTC"]["total"] == float(account.btc)
            assert (await client.ask("fetch_ticker", BTC, account="boris")).result.lane == "kraken.boris"
            assert (await client.ask("fetch_balance", exchanges=["kraken.anna"])).code == ErrorCode.METHOD_NOT_ALLOWED
            assert (await client.ask("fetch_balance", account="carla")).code == ErrorCode.UNKNOWN_EXCHANGE
            server: Any = connect(redis_url, timeout_s=5)
            async with server:
                keys: list[str] = [key.decode() async for key in server.scan_iter("*")]
                assert sum(":account:" in key for key in keys) >= 2
        assert (await simulator.counters())["violations"] == 0
        logs = "".join(service.log.read_text() for service in (*fleet.dispatchers, *fleet.workers))
        for secret in SECRETS:
            assert secret not in logs
            assert not any(secret in key for key in keys)
