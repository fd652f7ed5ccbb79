"""``python -m schemas.gateway --config fleet.toml`` runs one gateway until SIGTERM or Ctrl-C."""

import sys

from ..config import Config
from ..runtime import processes
from .service import Gateway


def main() -> int:
    """Runs a gateway as the command line says."""
    parser = processes.parser("schemas.gateway")
    parser.add_argument("--address", help="listen on this address, in place of the configuration's")
    parser.add_argument("--port", type=int, help="and on this port")
    options = parser.parse_args()

    def make(config: Config) -> Gateway:
        return Gateway(config, options.address, options.port)

    return processes.run("gateway", options, make, announced=False)


if __name__ == "__main__":
    sys.exit(main())
