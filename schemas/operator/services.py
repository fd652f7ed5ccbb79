"""The commands that run the fleet: ``up``, ``dispatcher``, ``worker``. Each becomes the module that does it."""

import importlib.util
import os
from pathlib import Path
from typing import Annotated, Final

import typer

from ..runtime import modules

# What the extra `services` brings that its modules import at once.
NEEDED: Final = ("aiohttp", "ccxt", "prometheus_client", "tomli_w", "uvloop")

Config = Annotated[
    Path | None, typer.Option(show_default=False, help="the fleet's TOML file; by default the one shipped")
]
MetricsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65_535, show_default=False, help="serve metrics, status and health over HTTP on this port"),
]
MetricsAddress = Annotated[str, typer.Option(help="and on this address")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(up)
    app.command()(dispatcher)
    app.command()(worker)


def up(
    config: Config = None,
    simulator: Annotated[
        bool, typer.Option("--simulator", help="five simulated exchanges; nothing leaves the machine")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="worker processes")] = 2,
) -> None:
    """Runs the whole fleet on this machine until Ctrl-C, with a RabbitMQ and a Redis of its own."""
    if simulator and config:
        raise typer.BadParameter("the simulated exchanges are a configuration of their own: leave --config out")
    _become(modules.command("deploy.up", "--workers", str(workers)), config, *(["--simulator"] if simulator else []))


def dispatcher(
    config: Config = None, metrics_port: MetricsPort = None, metrics_address: MetricsAddress = "127.0.0.1"
) -> None:
    """Runs one dispatcher until SIGTERM or Ctrl-C; FLEET_BROKER_URL and FLEET_REDIS_URL say where the servers are."""
    _become(modules.command("dispatcher"), config, *_metrics(metrics_port, metrics_address))


def worker(
    config: Config = None, metrics_port: MetricsPort = None, metrics_address: MetricsAddress = "127.0.0.1"
) -> None:
    """Runs one worker until SIGTERM or Ctrl-C; FLEET_BROKER_URL and FLEET_REDIS_URL say where the servers are."""
    _become(modules.command("workers"), config, *_metrics(metrics_port, metrics_address))


def _metrics(port: int | None, address: str) -> list[str]:
    return [] if port is None else ["--metrics-port", str(port), "--metrics-address", address]


def _become(command: list[str], config: Path | None, *words: str) -> None:
    """Replaces this process: signals and the exit code are then the service's own."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        typer.echo(f"this needs {', '.join(missing)}: pip install 'ccxt-fleet[services]'", err=True)
        raise typer.Exit(2)
    words = (*words, *(["--config", str(config)] if config else []))
    os.execv(command[0], [*command, *words])
