"""``python -m schemas``, installed ``ccxt-fleet`` and ``python -m ccxt_fleet``: see `operator.cli`."""

import importlib.util
import sys
from typing import Final

# What the extra `cli` brings.
NEEDED: Final = ("typer", "rich", "redis")


def main() -> None:
    """Runs the command line; where what it needs is not installed it says how to get it, and exits with 2.

    ``run`` needs nothing more than the client.
    """
    if sys.argv[1:2] == ["run"]:  # for any environment that has the client, and ccxt
        from .operator import running  # noqa: PLC0415

        running.main(sys.argv[2:])
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"the command line needs {', '.join(missing)}: pip install 'ccxt-fleet[cli]'", file=sys.stderr)
        sys.exit(2)
    # Imported here, as the message above is for those who can't.
    from .operator.cli import app  # noqa: PLC0415

    app()


if __name__ == "__main__":
    main()
