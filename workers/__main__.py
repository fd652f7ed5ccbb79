"""``python -m workers --config fleet.toml`` runs one worker until SIGTERM or Ctrl-C; ``--processes 4`` runs four."""

import asyncio
import functools
import importlib
import sys
from typing import TYPE_CHECKING

from schemas.config import Config
from schemas.errors import ConfigError
from schemas.runtime import processes

from .part import ALL, Part

if TYPE_CHECKING:
    from .service import Worker


def _prepare(part: Part, config: Config) -> None:
    """Imports all that a worker needs, and reads its tables."""
    part.check(config.lanes)
    # Imported only here, because ccxt takes seconds: signals are handled by now.
    importlib.import_module(f"{__package__}.service")
    from .exchange import versions  # noqa: PLC0415
    from .exchange.charged import CCXT_VERSION  # noqa: PLC0415
    from .limits.tables import shipped  # noqa: PLC0415

    versions.check(CCXT_VERSION)
    shipped()


def _warm(part: Part, config: Config) -> None:
    """Makes and drops what each worker will make: what that leaves behind, in ccxt's classes above all, is shared."""
    _prepare(part, config)
    from .check import check  # noqa: PLC0415

    asyncio.run(check(config, part))


def _make(part: Part, config: Config) -> "Worker":
    _prepare(part, config)
    from .service import Worker  # noqa: PLC0415

    return Worker(config, part)


def _main() -> int:
    parser = processes.parser("workers")
    parser.add_argument("--processes", type=int, help="run so many workers, which share what they import")
    parser.add_argument("--lanes", help="serve only lanes that fit one of these, as 'okx*,binance'")
    options = parser.parse_args()
    if options.processes is not None and options.processes < 1:
        parser.error("--processes: expected a whole number from 1")
    try:
        part = ALL if options.lanes is None else Part.read(options.lanes)
    except ConfigError as error:
        parser.error(str(error))
    make = functools.partial(_make, part)
    if options.processes is None:
        return processes.run("workers", options, make)
    processes.prepare()
    where = processes.site(options)
    from .forked import start  # noqa: PLC0415

    return start.run(options.processes, functools.partial(_warm, part), make, options.config, where)


if __name__ == "__main__":
    sys.exit(_main())
