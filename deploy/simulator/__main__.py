"""`python -m deploy.simulator`: serves the exchanges until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from aiohttp import web

from schemas.runtime import modules

from .board import make_tapes
from .clock import Clock
from .control import Control
from .exchanges.binance import Binance
from .exchanges.coinbase import Coinbase
from .exchanges.coinbaseexchange import CoinbaseExchange
from .exchanges.htx import Htx
from .exchanges.kraken import Kraken
from .exchanges.okx import Okx
from .server import KEEP_ALIVE_S, Door
from .venue import Venue, encode

_ALL: tuple[type[Venue], ...] = (Binance, Okx, Htx, Coinbase, Kraken, CoinbaseExchange)
VENUES = {venue.name: venue for venue in _ALL}
# Those of the demo and the images. The last is served where it is named.
USUAL = tuple(VENUES)[:-1]


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {modules.module('deploy.simulator')}", description="Exchanges to practise on."
    )
    parser.add_argument("--seed", type=int, default=1, help="prices and faults follow from it (default: 1)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=0, help="the control port; the exchanges' follow in order (default: free ones)"
    )
    parser.add_argument(
        "--exchanges", default=",".join(USUAL), help=f"which of {', '.join(VENUES)} (default: the first five)"
    )
    parser.add_argument("--ban-base-s", type=float, help="length of a first ban in seconds (default: the exchange's)")
    parser.add_argument(
        "--keep-alive-s",
        type=float,
        default=KEEP_ALIVE_S,
        help=f"seconds after which an idle connection is closed (default: {KEEP_ALIVE_S:g})",
    )
    parser.add_argument("--no-limits", action="store_true", help="count limits but never refuse")
    arguments = parser.parse_args(words)
    arguments.exchanges = [name for name in arguments.exchanges.split(",") if name]
    unknown = [name for name in arguments.exchanges if name not in VENUES]
    if unknown:
        parser.error(f"no exchange {unknown[0]!r}: there are {', '.join(VENUES)}")
    return arguments


async def serve(arguments: argparse.Namespace) -> None:
    """Open all ports, say where they are in one line on stdout, and serve until a signal says to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock = Clock()
    tapes = make_tapes(arguments.seed)
    doors: dict[str, Door] = {}
    for place, name in enumerate(arguments.exchanges, 1):
        venue = VENUES[name](clock, tapes)
        doors[name] = Door(venue, clock, arguments.seed, arguments.ban_base_s, arguments.keep_alive_s)
        doors[name].ledger.enforced = not arguments.no_limits
        await doors[name].open(arguments.host, arguments.port and arguments.port + place)
    runner = web.AppRunner(Control(doors, clock).app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, arguments.host, arguments.port).start()
    where = {
        "control": f"http://{arguments.host}:{runner.addresses[0][1]}",
        "exchanges": {name: door.url for name, door in doors.items()},
    }
    sys.stdout.write(encode(where).decode() + "\n")
    sys.stdout.flush()
    await stop.wait()
    for door in doors.values():
        await door.close()
    await runner.cleanup()


def main() -> None:
    """Run it, on uvloop where that is installed."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    arguments = _arguments(sys.argv[1:])
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        asyncio.run(serve(arguments))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(arguments))


if __name__ == "__main__":
    main()
