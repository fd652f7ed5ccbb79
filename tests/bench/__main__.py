"""All benchmarks: ``python -m tests.bench [--only hop|fleet|budget] [--rounds N]``.

Each sets the fleet's figures beside a reference measured in the same run, by turns. A missed aim is said in the table
and is no error: machines differ, and so does what else they do meanwhile.
"""

import argparse
import contextlib
import os
import platform

import uvloop

from . import budget, fleet, hop

PARTS = ("hop", "fleet", "budget")


async def main(parts: list[str], rounds: int) -> None:
    """Runs the parts one after another."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {_load()}")
    if "hop" in parts:
        await hop.run(rounds)
    if "fleet" in parts:
        await fleet.run(rounds)
    if "budget" in parts:
        print("\nBudgets in Redis")
        await budget.main(seconds=1)
    print(f"\n{_load()}")


def _load() -> str:
    return (
        f"load of the machine in the last minute {os.getloadavg()[0]:.1f} (above the CPUs, latencies show others' work)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="only this part")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of hop and fleet (default: 3)")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main([options.only] if options.only else list(PARTS), options.rounds))
