"""``python -m dispatcher --config fleet.toml`` runs one dispatcher until SIGTERM or Ctrl-C."""

import argparse
import sys
from pathlib import Path

import uvloop
from prometheus_client import start_http_server

from schemas import config, logs, processes
from schemas.errors import FleetError

from .service import Dispatcher


def main() -> int:
    """Runs the dispatcher; a configuration error or a broker out of reach ends it with one line that says why."""
    parser = argparse.ArgumentParser(prog="python -m dispatcher", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deploy/fleet.toml"), help="the fleet's TOML file")
    parser.add_argument("--metrics-port", type=int, help="serve Prometheus metrics on this loopback port")
    options = parser.parse_args()
    logs.setup()
    try:
        loaded = config.load(options.config)
        if options.metrics_port is not None:
            start_http_server(options.metrics_port, addr="127.0.0.1")
        uvloop.run(processes.until_told(Dispatcher(loaded).run))
    except FleetError as error:
        print(f"dispatcher: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
