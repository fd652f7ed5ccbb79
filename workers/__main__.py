"""``python -m workers --config fleet.toml`` runs one worker until SIGTERM or Ctrl-C."""

import sys

from schemas import processes
from schemas.config import Config

from . import versions
from .exchanges import CCXT_VERSION
from .service import Worker


def _make(config: Config) -> Worker:
    versions.check(CCXT_VERSION)
    return Worker(config)


if __name__ == "__main__":
    sys.exit(processes.main("workers", _make))
