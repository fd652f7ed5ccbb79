"""``python -m workers --config fleet.toml`` runs one worker until SIGTERM or Ctrl-C."""

import sys
from typing import TYPE_CHECKING

from schemas.config import Config
from schemas.runtime import processes

if TYPE_CHECKING:
    from .service import Worker


def _make(config: Config) -> "Worker":
    # Imported only here, because ccxt takes seconds: signals are handled by now.
    from .exchange import versions  # noqa: PLC0415
    from .exchange.charged import CCXT_VERSION  # noqa: PLC0415
    from .service import Worker  # noqa: PLC0415

    versions.check(CCXT_VERSION)
    return Worker(config)


if __name__ == "__main__":
    sys.exit(processes.main("workers", _make))
