"""``python -m workers --config fleet.toml`` runs one worker until SIGTERM or Ctrl-C."""

import sys

from schemas import processes

from .service import Worker

if __name__ == "__main__":
    sys.exit(processes.main("workers", Worker))
