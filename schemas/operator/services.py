"""The commands that run the fleet: ``up``, ``dispatcher``, ``worker``, ``gateway``. Each becomes a module's process."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from ..runtime import modules
from . import output
from .options import Json, complete_exchange

# What the extra `services` brings that its modules import at once.
NEEDED: Final = ("aiohttp", "ccxt", "prometheus_client", "tomli_w", "uvloop")
# And the extra `gateway`.
GATEWAY_NEEDED: Final = ("aiohttp", "prometheus_client", "uvloop")

Config = Annotated[
    Path | None, typer.Option(show_default=False, help="the fleet's TOML file; by default the one shipped")
]
MetricsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65_535, show_default=False, help="serve metrics, status and health over HTTP on this port"),
]
MetricsAddress = Annotated[str, typer.Option(help="and on this address")]


gateway = typer.Typer(help="The fleet's HTTP door: run it, or see what leads programs to it.")


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(up)
    app.command()(dispatcher)
    app.command()(worker)
    app.add_typer(gateway, name="gateway")

    app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})(
        run
    )


def up(
    config: Config = None,
    simulator: Annotated[
        bool, typer.Option("--simulator", help="five simulated exchanges; nothing leaves the machine")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="worker processes")] = 2,
    door: Annotated[
        int | None,
        typer.Option("--gateway", min=1, max=65_535, metavar="PORT", show_default=False, help="the HTTP door too"),
    ] = None,
) -> None:
    """Runs the whole fleet on this machine until Ctrl-C, with a RabbitMQ and a Redis of its own."""
    if simulator and config:
        raise typer.BadParameter("the simulated exchanges are a configuration of their own: leave --config out")
    more = [*(["--simulator"] if simulator else []), *(["--gateway", str(door)] if door else [])]
    _become(modules.command("deploy.up", "--workers", str(workers)), config, *more)


def dispatcher(
    config: Config = None, metrics_port: MetricsPort = None, metrics_address: MetricsAddress = "127.0.0.1"
) -> None:
    """Runs one dispatcher until SIGTERM or Ctrl-C; FLEET_BROKER_URL and FLEET_REDIS_URL say where the servers are."""
    _become(modules.command("dispatcher"), config, *_metrics(metrics_port, metrics_address))


def worker(
    config: Config = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, show_default=False, help="run so many workers, which share memory and one metrics port"),
    ] = None,
    lanes: Annotated[
        str | None, typer.Option(show_default=False, help="serve only lanes that fit one of these, as 'okx*,binance'")
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_address: MetricsAddress = "127.0.0.1",
) -> None:
    """Runs one worker until SIGTERM or Ctrl-C; FLEET_BROKER_URL and FLEET_REDIS_URL say where the servers are."""
    words = _metrics(metrics_port, metrics_address)
    words += [] if processes is None else ["--processes", str(processes)]
    words += [] if lanes is None else ["--lanes", lanes]
    _become(modules.command("workers"), config, *words)


@gateway.callback(invoke_without_command=True)
def run_gateway(
    words: typer.Context,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, show_default=False, help="listen on this port, in place of gateway.port"),
    ] = None,
    address: Annotated[
        str | None, typer.Option(show_default=False, help="and on this address, in place of gateway.address")
    ] = None,
    config: Config = None,
    metrics_port: MetricsPort = None,
    metrics_address: MetricsAddress = "127.0.0.1",
) -> None:
    """Runs the fleet's HTTP door until SIGTERM or Ctrl-C, for programs that call an exchange themselves."""
    if words.invoked_subcommand is not None:
        return
    where = [*(["--port", str(port)] if port is not None else []), *(["--address", address] if address else [])]
    command, more = modules.command("schemas.gateway"), _metrics(metrics_port, metrics_address)
    _become(command, config, *where, *more, needed=GATEWAY_NEEDED, extra="gateway")


@gateway.command("config")
def gateway_config(
    exchange: Annotated[
        str, typer.Argument(help="a ccxt id; with -sandbox its testnet", autocompletion=complete_exchange)
    ],
    url: Annotated[str, typer.Option("--gateway", help="where programs reach the gateway")] = "http://127.0.0.1:8080",
    token: Annotated[bool, typer.Option("--token", help="it wants tokens")] = False,
    as_json: Json = False,
) -> None:
    """What to put into ccxt's `urls`, into freqtrade's configuration, and a line for curl."""
    import importlib
    from typing import Any

    from ..errors import ConfigError

    made: Any = importlib.import_module(modules.module("schemas.gateway.leads"))
    try:
        found = made.leads(exchange, url, token=token)
    except ConfigError as error:
        output.fail(str(error), output.USAGE)
    if as_json:
        output.show_json(found)
        return
    output.say("ccxt, for its class's constructor:")
    output.show_json(found.ccxt)
    output.say("freqtrade, in its configuration's `exchange`:")
    output.show_json(found.freqtrade)
    output.say("curl:")
    output.out(found.curl)


def run(context: typer.Context) -> None:
    """Starts a Python program with its ccxt led through the fleet: `ccxt-fleet run -- freqtrade …`."""
    from . import running

    running.main(context.args)


def _metrics(port: int | None, address: str) -> list[str]:
    return [] if port is None else ["--metrics-port", str(port), "--metrics-address", address]


def _become(
    command: list[str],
    config: Path | None,
    *words: str,
    needed: Sequence[str] = NEEDED,
    extra: str = "services",
) -> None:
    """Replaces this process: signals and the exit code are then the service's own."""
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        typer.echo(f"this needs {', '.join(missing)}: pip install 'ccxt-fleet[{extra}]'", err=True)
        raise typer.Exit(2)
    words = (*words, *(["--config", str(config)] if config else []))
    os.execv(command[0], [*command, *words])
