"""`pause`: lists the pauses that exchanges asked for, and ends them."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from . import output
from .looking import pause_line, pause_view
from .options import Json, RedisUrl, complete_exchange, redis_url

if TYPE_CHECKING:
    import redis.asyncio

    from .pauses import Pause

T = TypeVar("T")

ALL: Final = "*"

app = typer.Typer(no_args_is_help=True, help="Pauses that exchanges asked for: list them, end them.")


@app.command("list")
def list_pauses(
    exchange: Annotated[
        str, typer.Argument(help="only those of this exchange", autocompletion=complete_exchange, show_default=False)
    ] = ALL,
    redis: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """One line for each pause, the longest first."""
    from . import pauses

    exchange = exchange if exchange == ALL else _exchange(exchange)
    found = _at_redis(redis, lambda client: pauses.held(client, exchange))
    if as_json:
        output.show_json([pause_view(each) for each in found])
        return
    for each in found:
        output.out(f"paused: {pause_line(pause_view(each))}")
    others = "" if found or exchange == ALL else _others(redis)
    output.say(f"{output.many(len(found), 'pause')}{others}")


@app.command()
def lift(
    exchange: Annotated[str, typer.Argument(help="the exchange", autocompletion=complete_exchange)],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    redis: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """Ends all pauses of an exchange, for all workers. Use it only if you know that it takes calls again."""
    from . import pauses

    exchange = _exchange(exchange)
    if not yes and _at_redis(redis, lambda client: pauses.held(client, exchange)):
        asked = f"{exchange} asked for silence; calls before its time may bring a longer ban. Go on?"
        typer.confirm(asked, abort=True, err=True)
    ended = _at_redis(redis, lambda client: pauses.lift(client, exchange))
    if as_json:
        output.show_json([pause_view(each) for each in ended])
    else:
        for each in ended:
            output.out(f"lifted: {pause_line(pause_view(each))}")
    if not ended:
        output.fail(f"no pause of {exchange}{_others(redis)}")


def _exchange(name: str) -> str:
    """An exchange, or its testnet, as ccxt names it today; raises typer.BadParameter. It becomes part of a pattern."""
    from .. import old_names
    from ..ccxt_settings import nearest
    from ..config import SANDBOX
    from ..exchange_ids import EXCHANGE_IDS

    today = old_names.today(name)
    if today.removesuffix(SANDBOX) not in EXCHANGE_IDS:
        near = nearest(today, EXCHANGE_IDS)
        raise typer.BadParameter(f"{name!r} is no exchange of ccxt{near}")
    return today


def _others(redis: str | None) -> str:
    """What to say of the exchanges that have pauses where one has none: those of one host share theirs."""
    from . import pauses

    found: list[Pause] = _at_redis(redis, pauses.held)
    names = dict.fromkeys(each.exchange for each in found)
    return f"; paused: {', '.join(names)} (exchanges on one host share pauses)" if names else ""


def _at_redis(url: str | None, work: "Callable[[redis.asyncio.Redis], Awaitable[T]]") -> T:
    from . import servers

    async def do() -> T:
        async with servers.redis_at(redis_url(url)) as client:
            return await work(client)

    return output.run(do())
