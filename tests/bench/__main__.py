"""All benchmarks, or some: ``python -m tests.bench [--only NAME ...] [--seconds N] [--rounds N] [--markdown]``.

Each sets the fleet's figures beside a reference measured in the same run, or beside what an exchange allows. Rows are
printed as they come. A missed aim is said in the table and is no error: machines differ, and so does what else they do
meanwhile.
"""

import argparse
import contextlib
import os
import platform
import time
from typing import Final

import uvloop

from . import (
    acquire,
    bulk,
    changes,
    crowd,
    direct,
    door,
    fleet,
    forked,
    gateway,
    hop,
    idle,
    lanes,
    model,
    outages,
    overhead,
    pauses,
    precision,
    redis_lost,
    restarted,
    routing,
    shared,
    sizing,
    strangers,
    waiting,
)
from .measure import Options

PARTS: Final = {
    "hop": hop.run,
    "fleet": fleet.run,
    "door": door.run,
    "client": overhead.run,
    "restarted": restarted.run,
    "strangers": strangers.run,
    "direct": direct.run,
    "redis_lost": redis_lost.run,
    "precision": precision.run,
    "forked": forked.run,
    "idle": idle.run,
    "lanes": lanes.run,
    "reports": lanes.run_reports,
    "pauses": pauses.run,
    "acquire": acquire.run,
    "bulk": bulk.run,
    "routing": routing.run,
    "outages": outages.run,
    "crowd": crowd.run,
    "changes": changes.run,
    "waiting": waiting.run,
    "gateway": gateway.run,
    "bots": gateway.run_bots,
    "shared": shared.run,
    "sizing": sizing.run,
    "model": model.run,
}


async def main(parts: list[str], options: Options) -> None:
    """Runs the parts one after another."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {_load()}", flush=True)
    for part in parts:
        begun_s = time.monotonic()
        await PARTS[part](options)
        print(f"\n{part}: {time.monotonic() - begun_s:.0f} s, {_load()}", flush=True)


def _load() -> str:
    return (
        f"load of the machine in the last minute {os.getloadavg()[0]:.1f} (above the CPUs, latencies show others' work)"
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="only these parts")
    parser.add_argument("--seconds", type=float, help="how long one measurement takes (default: the part's own)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of those that repeat (default: 3)")
    parser.add_argument("--workers", type=_numbers, help="numbers of worker processes to compare, e.g. 1,4")
    parser.add_argument("--exchanges", type=_words, help="only these exchanges, of those that take one after another")
    parser.add_argument("--faults", type=_words, help="only these kinds of outages, e.g. refused,slow")
    parser.add_argument("--rate", type=float, help="requests a second under outages")
    parser.add_argument(
        "--dispatchers", type=int, default=1, help="dispatcher processes of outages, waiting and crowd (default: 1)"
    )
    parser.add_argument("--kill", action="store_true", help="kill a dispatcher in the middle of each outage")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    options = parser.parse_args()
    only = options.__dict__.pop("only")
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main(only, Options(**vars(options))))
