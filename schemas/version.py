"""The version of the fleet, as in `pyproject.toml`; every process reports it."""

from typing import Final

VERSION: Final = "0.1.0"
