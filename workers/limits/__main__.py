"""``python -m workers.limits show --config fleet.toml``: the limits that lanes keep to, and which are guesses."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas import old_names
from schemas.ccxt_settings import nearest
from schemas.config import Config, LaneConfig, load
from schemas.errors import ConfigError
from schemas.exchange_ids import EXCHANGE_IDS
from schemas.runtime import modules

from .show import ShownLane, lanes, rendered

__all__ = ["rendered", "show", "shown"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The limits of exchanges.")


@app.callback()
def _main() -> None:
    """Makes Typer treat a single command as a subcommand."""


@app.command()
def show(
    exchanges: Annotated[list[str] | None, typer.Argument(help="only these lanes, or lanes of these exchanges")] = None,
    config: Annotated[Path, typer.Option(help="the fleet's TOML file")] = modules.FLEET_TOML,
) -> None:
    """The limits of each lane, with what they are taken from."""
    try:
        for line in rendered(shown(exchanges or (), config)):
            typer.echo(line)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def shown(exchanges: Sequence[str], config: Path | None) -> list[ShownLane]:
    """What lanes keep to.

    Args:
        exchanges: only these lanes, or lanes of these exchanges; without a file these exchanges of ccxt, as lanes.
        config: the fleet's TOML file.

    Raises:
        ConfigError: the file is wrong; or there is no such lane or exchange.
    """
    if config is None:
        names = [old_names.today(each) for each in exchanges]
        for name in names:
            if name not in EXCHANGE_IDS:
                near = "" if (said := old_names.remark(name)) else nearest(name, EXCHANGE_IDS)
                raise ConfigError(f"{name!r} is no exchange of ccxt{f': {said}' if said else near}")
        fleet = Config(lanes={name: LaneConfig(exchange=name) for name in names})
    else:
        fleet = load(config)
        names = [each if each in fleet.lanes else old_names.today(each) for each in exchanges]
    return list(lanes(fleet, _paces_ms(fleet), names))


def _paces_ms(config: Config) -> dict[str, float]:
    """ccxt's `rateLimit` of each lane's exchange; ConfigError where it has no such exchange."""
    ccxt: Any = importlib.import_module("ccxt")
    for name, lane in config.lanes.items():
        if lane.exchange not in ccxt.exchanges:
            raise ConfigError(f"lanes.{name}.exchange: expected an exchange id of ccxt, not {lane.exchange!r}")
    return {lane.exchange: float(getattr(ccxt, lane.exchange)().rateLimit) for lane in config.lanes.values()}


if __name__ == "__main__":
    app()
