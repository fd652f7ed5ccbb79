"""``python -m dispatcher --config fleet.toml`` runs one dispatcher until SIGTERM or Ctrl-C."""

import sys

from schemas.runtime import processes

from .service import Dispatcher

if __name__ == "__main__":
    sys.exit(processes.main("dispatcher", Dispatcher))
