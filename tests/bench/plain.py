"""One program as ccxt's users write it, with ccxt's own limiter: ``python -m tests.bench.plain``, see `door.py`.

It asks for the same calls as the fleet's clients do, as many at once, until its input ends; then it prints how many
brought data since it read ``count``.
"""

import asyncio
import sys
from typing import Any

import msgspec

from deploy.simulator.ccxt_config import ccxt_config
from workers.exchange.charged import ccxt

from .load import Tally, saturated


class Answered(msgspec.Struct, frozen=True):
    """What it prints: calls that brought data, by exchange, and those that did not."""

    answered: dict[str, int]
    failed: dict[str, int]


async def main(urls: dict[str, str]) -> None:
    """Calls until its input ends."""
    exchanges: dict[str, Any] = {name: getattr(ccxt, name)(ccxt_config(name, url)) for name, url in urls.items()}

    async def call(exchange: str, method: str, args: dict[str, Any]) -> bool:
        try:
            await getattr(exchanges[exchange], method)(**args)
        except ccxt.BaseError:
            return False
        return True

    try:
        for exchange in exchanges.values():
            await _loaded(exchange)
        async with saturated(call, list(urls)) as tally:
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            before = _copy(tally)
            await asyncio.to_thread(sys.stdin.readline)
            answered, failed = tally.answered - before.answered, tally.failed - before.failed
            print(msgspec.json.encode(Answered(answered, failed)).decode(), flush=True)
    finally:
        for exchange in exchanges.values():
            await exchange.close()


async def _loaded(exchange: Any) -> None:
    while True:
        try:
            await exchange.load_markets()
        except ccxt.BaseError:
            await asyncio.sleep(1)
        else:
            return


def _copy(tally: Tally) -> Tally:
    copy = Tally()
    copy.answered, copy.failed = tally.answered.copy(), tally.failed.copy()
    return copy


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1])))
