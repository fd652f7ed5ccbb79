"""`config check` and `limits show`: what a configuration says, before a service runs with it."""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime import modules
from . import output
from .doctor import show
from .options import Json, complete_exchange

config = typer.Typer(no_args_is_help=True, help="The configuration: what is wrong with it.")
limits = typer.Typer(no_args_is_help=True, help="The limits of exchanges.")


@config.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="the fleet's TOML file; without it the one that is shipped")
    ] = None,
    as_json: Json = False,
) -> None:
    """All that a service would refuse at its start: the key, and what would work."""
    from .mistakes import mistakes
    from .shapes import Finding, FindingsView

    path = file or modules.FLEET_TOML
    try:
        path.read_bytes()
    except (OSError, ValueError) as error:
        output.fail(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}", output.USAGE)
    found = [Finding(key, "wrong", what) for key, what in mistakes(path, _worker_check())]
    if not found:
        found.append(Finding("configuration", "ok", f"{path}: a service would start with it"))
    if _worker_check() is None:
        text = "what only ccxt and the tables of limits tell was not checked: a lane's exchange, `ccxt`, `limits`"
        found.append(Finding("configuration", "note", text, "pip install 'ccxt-fleet[services]'"))
    view = FindingsView(all(each.level != "wrong" for each in found), found)
    show(found, as_json=as_json, view=view)
    if not view.ok:
        raise typer.Exit(output.WRONG)


def _worker_check() -> Any:
    """What a worker checks besides; None where the services' packages are not installed."""
    found: Any = _workers(modules.module("workers.check"))
    return None if found is None else found.check


def _workers(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


@limits.command("show")
def show_limits(
    exchanges: Annotated[
        list[str] | None,
        typer.Argument(help="exchanges; with --config lanes too", autocompletion=complete_exchange),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="the fleet's TOML file: the limits of its lanes")] = None,
    as_json: Json = False,
) -> None:
    """What calls to an exchange keep to: which table, its limits, and which of them are not certain."""
    from ..errors import ConfigError

    found = _workers(modules.module("workers.limits.__main__"))
    if found is None:
        output.fail("the tables of limits need ccxt: pip install 'ccxt-fleet[services]'", output.USAGE)
    if not exchanges and config is None:
        config = modules.FLEET_TOML
    try:
        lanes = found.shown(exchanges or [], config)
    except ConfigError as error:
        output.fail(str(error), output.USAGE)
    if as_json:
        output.show_json(lanes)
        return
    for line in found.rendered(lanes):
        output.out(output.plain(line))
