"""`run`: starts any Python program with its ccxt led through the fleet. It needs nothing but Python's own modules.

The program takes this process's place (`execvpe`): signals, the terminal and the exit code are its own. Its Python, and
that of every process that it starts, finds `workers.dropin.site` first, which waits until ccxt is imported.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from ..runtime import modules

# Exit codes of shells for a program that is not there, or can't be run.
NOT_FOUND: Final = 127
NOT_RUN: Final = 126
_WHAT: Final = """
Starts a Python program, with its ccxt led through the fleet: a command such as freqtrade, python -m MODULE, or a file
that ends in .py. ccxt-fleet must be installed in the program's environment, too: pip install ccxt-fleet.
"""


def main(words: Sequence[str]) -> None:
    """Starts what the words say; returns only by SystemExit."""
    parser = argparse.ArgumentParser(
        prog="ccxt-fleet run", usage="%(prog)s [options] -- PROGRAM [words of its own]", description=_WHAT
    )
    parser.add_argument("--url", help="RabbitMQ, in place of FLEET_BROKER_URL")
    parser.add_argument("--redis-url", help="Redis, in place of FLEET_REDIS_URL: for --private direct")
    parser.add_argument("--deadline", metavar="SECONDS", type=float, help="how long a call may take, 60 if not said")
    parser.add_argument("--priority", choices=("live", "bulk"), help="bulk: its calls yield to all others")
    parser.add_argument(
        "--private",
        choices=("refused", "direct"),
        help="direct: other calls are sent by the program, charged",
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    program: list[str] = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        parser.error("which program? ccxt-fleet run -- freqtrade download-data …")
    said = {
        "FLEET_BROKER_URL": options.url,
        "FLEET_REDIS_URL": options.redis_url,
        "FLEET_DEADLINE_S": options.deadline and f"{options.deadline:g}",
        "FLEET_PRIORITY": options.priority,
        "FLEET_PRIVATE": options.private,
    }
    argv = [sys.executable, *program] if program[0].endswith(".py") else program
    sys.stdout.flush()
    try:
        os.execvpe(argv[0], argv, environment({name: value for name, value in said.items() if value}))
    except FileNotFoundError:
        print(f"ccxt-fleet run: no program {argv[0]!r} is found", file=sys.stderr)
        sys.exit(NOT_FOUND)
    except OSError as error:
        print(f"ccxt-fleet run: {argv[0]!r} can't be run: {error}", file=sys.stderr)
        sys.exit(NOT_RUN)


def environment(said: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that is led: this one's, with what the command line says.

    Args:
        said: variables with their values.
    """
    places = [modules.HOOK, *([modules.CHECKOUT] if modules.CHECKOUT else [])]
    before = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    ours = [place for place in map(str, places) if place not in before]
    return {
        **os.environ,
        **said,
        "PYTHONPATH": os.pathsep.join([*ours, *before]),
        "CCXT_FLEET_HOOK": modules.module("workers.dropin.hook"),
    }
