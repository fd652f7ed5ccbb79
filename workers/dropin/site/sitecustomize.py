"""Python runs this as it starts where ``ccxt-fleet run`` has put its folder first: see `hook`.

It waits until ccxt is imported, if it is at all. It has to run in any environment, and imports nothing but Python's own
modules until then.
"""

import importlib
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any, Final

# Where ccxt defines the class that its exchanges are made of.
BASES: Final = ("ccxt.base.exchange", "ccxt.async_support.base.exchange")


class Loader:
    """Loads a module as its own loader does, and leads it through the fleet then."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As its own loader does."""
        made: ModuleType | None = self._own.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """As its own loader does; then the fleet is put in."""
        self._own.exec_module(module)
        name = os.environ.get("CCXT_FLEET_HOOK", "")
        try:
            hook = importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"ccxt-fleet run: ccxt's calls can't go to the fleet, as {sys.executable} can't import {name} "
                f"({error}): pip install ccxt-fleet in this program's environment too"
            ) from error
        hook.lead(module)


class Finder:
    """Finds the modules that are to be led."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module where Python finds it, with our loader."""
        spec = PathFinder.find_spec(name, path, target) if name in BASES else None
        if spec is not None:
            spec.loader = Loader(spec.loader)  # type: ignore[assignment]
        return spec


def go_on() -> None:
    """Runs the environment's own `sitecustomize`, which this one hides."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (pathlib takes its time to load)
    rest = [place for place in sys.path if os.path.abspath(place) != here]  # noqa: PTH100
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        sys.modules["sitecustomize"] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


if "CCXT_FLEET_HOOK" in os.environ:
    sys.meta_path.insert(0, Finder)
go_on()
