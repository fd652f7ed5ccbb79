"""``python -m schemas``, installed ``python -m ccxt_fleet``: see `operator.cli`."""

from .operator.cli import app

if __name__ == "__main__":
    app()
