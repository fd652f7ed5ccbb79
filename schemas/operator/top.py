"""`top`: the fleet at work."""

import sys
from typing import Annotated

import typer

from . import output
from .options import Json, RedisUrl, Url, broker_urls, redis_url


def top(
    sort: Annotated[str, typer.Option(help="lane, rate, errors, latency, budget or waiting")] = "lane",
    times: Annotated[int | None, typer.Option(min=1, help="end after so many looks, a second apart")] = None,
    url: Url = None,
    redis: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """The fleet at work: rates, latency, budgets and queues of all lanes, every second. Keys: s sorts, q quits."""
    from .board import SORTS

    if sort not in SORTS:
        raise typer.BadParameter(f"--sort: expected one of {', '.join(SORTS)}, not {sort!r}")
    if not as_json and not (sys.stdin.isatty() and output.is_terminal()):
        output.fail("top needs a terminal; `top --json` is for programs, and so is `lanes --json`", output.USAGE)
    from . import screen

    if as_json:
        output.run(screen.lines(broker_urls(url), redis_url(redis), times))
    else:
        output.run(screen.screen(broker_urls(url), redis_url(redis), sort, times))
