"""The version of the fleet, as in `pyproject.toml`; processes say it of themselves."""

from typing import Final

VERSION: Final = "0.1.0"
