"""The command line: ``ccxt-fleet`` where the package is installed, ``python -m schemas`` in the checkout.

Each command is in the file of its noun, and imports what it needs when it runs.
"""

from typing import Annotated

import typer

from ..runtime import modules
from ..version import VERSION
from . import calls, configs, doctor, letters, looking, output, pausing, services, top
from .options import Json, Url, broker_urls

app = output.App(
    name="ccxt-fleet",
    no_args_is_help=True,
    help="Exchange data for any number of programs, within every exchange's limits: ask for it, and look at the fleet.",
    epilog=output.EPILOG,
    pretty_exceptions_enable=False,  # a traceback helps nobody, and its variables may hold a password
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command(context_settings=calls.ANY_WORDS)(calls.call)
app.command()(calls.http)
app.command("map")(calls.map_file)
app.command()(calls.tail)
for each in (looking.status, looking.lanes, looking.budget, top.top, doctor.doctor):
    app.command()(each)
services.register(app)
app.add_typer(letters.app, name="dead")
app.add_typer(pausing.app, name="pause")
app.add_typer(configs.config, name="config")
app.add_typer(configs.limits, name="limits")
requests = typer.Typer(no_args_is_help=True, help="Requests: take no more of them.")
app.add_typer(requests, name="requests")


def _text(word: str) -> str:
    """Refuses bytes that are no text in UTF-8, which Python reads as surrogates."""
    if any("\ud800" <= sign <= "\udfff" for sign in word):
        raise typer.BadParameter("expected text in UTF-8")
    return word


def _version(wanted: bool) -> None:
    if wanted:
        output.out(VERSION)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    """Takes the options that stand before a command."""


@app.command()
def definitions(
    config: services.Config = None,
    vhost: Annotated[str, typer.Option(help="the virtual host", callback=_text)] = "/",
    as_json: Annotated[bool, typer.Option("--json", help="as it is in any case")] = False,
) -> None:
    """Queues, exchanges, users and permissions for `rabbitmqctl import_definitions`."""
    from .. import config as configuration
    from ..definitions import definitions as make
    from ..errors import ConfigError

    del as_json
    try:
        lanes = configuration.load(config or modules.FLEET_TOML).lanes
    except ConfigError as error:
        output.fail(str(error), output.USAGE)
    output.show_json(make(lanes, vhost))


@requests.command()
def shut(url: Url = None, as_json: Json = False) -> None:
    """Has RabbitMQ refuse all requests, until a service starts or the definitions are imported again."""
    from . import door

    output.run(door.shut(broker_urls(url)))
    if as_json:
        output.show_json({"shut": True})
    else:
        output.out("RabbitMQ refuses requests now")
