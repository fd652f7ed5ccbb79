"""An account that meets a limit of its own, beside all others at its address."""

import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest
import redis.asyncio as redis_client

from schemas.operator import pauses
from tests.integration.test_gateway_signed import ORDERS, program, soon
from tests.support.fleet import Stand
from tests.support.reads import SYMBOL
from tests.support.signed import BORIS, signing


async def with_budget(call: Callable[[], Awaitable[Any]], says: str) -> Any:
    """Makes a call, and again while it is not sent for want of budget, as the gateway says."""
    while True:
        try:
            return await call()
        except ccxt.ExchangeNotAvailable as error:
            if says not in str(error):
                raise


async def loaded(made: Any) -> None:
    """Loads the markets; a test before may have taken the fleet's Redis away."""
    await with_budget(made.load_markets, "no budget")


async def sent(made: Any) -> Any:
    """Makes a private call; a gateway that has just started may have no budget yet."""
    order = functools.partial(made.create_order, SYMBOL, "limit", "buy", 0.001, 10_000)
    return await with_budget(made.fetch_balance if made.id == "kraken" else order, "no_budget: not sent")


@pytest.mark.parametrize(
    ("exchange", "refusal"),
    [
        # Binance counts an account's orders: no limit of ours, and so the whole account is left alone.
        ("binance", {"status": 429, "body": '{"code":-1015,"msg":"Too many new orders; current limit is 100."}'}),
        # Kraken counts an account's calls, which is a limit of ours.
        ("kraken", {"status": 200, "body": '{"error":["EAPI:Rate limit exceeded"]}'}),
        # Where an answer says no more than "too many", what was charged says whose limit it was.
        ("kraken", {"status": 429, "body": "Too Many Requests"}),
    ],
)
async def test_a_limit_of_an_account_s_own_is_nobody_else_s(
    stand: Stand, tmp_path: Path, exchange: str, refusal: dict[str, object]
) -> None:
    async with (
        signing(stand, tmp_path) as gateway,
        program(stand, gateway, exchange) as anna,
        program(stand, gateway, exchange, BORIS) as boris,
    ):
        for made in (anna, boris):
            await loaded(made)
        await stand.simulator.fault(exchange, said={ORDERS[exchange]: refusal})
        with pytest.raises(ccxt.BaseError) as raised:
            await sent(anna)
        assert str(refusal["body"])[:20] in str(raised.value)
        async with redis_client.from_url(stand.redis.url) as store:
            held = await pauses.held(store, exchange)
            client: Any = store
            learned: list[bytes] = [key async for key in client.scan_iter(f"fleet:{{{exchange}}}:*:learned")]
        assert held
        assert all(":account:" in each.place for each in held)
        assert all(b":account:" in key for key in learned), "the address's limits are not what was too small"
        await stand.simulator.clear(exchange)
        assert (await boris.fetch_balance())["BTC"]["total"] == float(BORIS.btc)
    answer = await stand.client.ask("fetch_ticker", {"symbol": SYMBOL}, exchanges=[exchange], deadline_ms=soon())
    assert answer.result.ok, answer.result.error
