"""`call`, `http`, `map`, `tail`: ask the fleet, and read along."""

from typing import Annotated, Any, Final

import typer

from . import output
from .options import (
    Url,
    age_ms,
    age_ms_or_bar,
    broker_urls,
    complete_exchange,
    complete_method,
    complete_strategy,
    seconds,
)

DEADLINE_S: Final = 30.0
# As in the client: many wait for each other, at the exchanges' pace.
MAP_DEADLINE_S: Final = 600.0
CONCURRENCY: Final = 500
# From here on an HTTP status says that there is no such thing, or that the call is wrong.
BAD_REQUEST: Final = 400

Exchanges = Annotated[
    list[str] | None,
    typer.Option(
        "--exchange",
        "-e",
        help="which may answer, the best first: ccxt ids, lanes, groups; for several repeat it, or put commas between",
        autocompletion=complete_exchange,
    ),
]
Account = Annotated[str | None, typer.Option(help="the account to read, by its name in the fleet's configuration")]
StrategyName = Annotated[
    str | None, typer.Option("--strategy", help="how one of them is chosen", autocompletion=complete_strategy)
]
Deadline = Annotated[
    float,
    typer.Option(
        parser=seconds(0.001, 86_400), metavar="SECONDS", help="seconds until an answer is of no use any more"
    ),
]
Bulk = Annotated[bool, typer.Option("--bulk", help="it has time: never delay live requests")]
Hedge = Annotated[
    float | None,
    typer.Option(parser=seconds(0.001, 3600), metavar="SECONDS", help="ask a second exchange after so many seconds"),
]
MaxAge = Annotated[
    str | None,
    typer.Option(
        parser=age_ms_or_bar,
        metavar="SECONDS|bar",
        help="an answer to an equal request will do that is no older; bar, for candles: one with all finished bars",
    ),
]
Whole = Annotated[bool, typer.Option("--result/--data", help="the whole result, or the data alone")]
OneLine = Annotated[bool, typer.Option("--raw", "--json", help="JSON on one line, for programs")]


# Words that the command does not know are left to `call`, which knows what they may be meant for.
ANY_WORDS: Final = {"allow_extra_args": True, "ignore_unknown_options": True}


def call(
    words: typer.Context,
    method: Annotated[str, typer.Argument(help="a ccxt read, e.g. fetch_ticker", autocompletion=complete_method)],
    symbol: Annotated[str | None, typer.Argument(help="its symbol, e.g. BTC/USDT")] = None,
    exchange: Exchanges = None,
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", "-a", help="an argument by its ccxt name, as limit=5 or params={...}; repeat it"),
    ] = None,
    deadline: Deadline = DEADLINE_S,
    everyone: Annotated[bool, typer.Option("--all", help="one answer from each exchange")] = False,
    account: Account = None,
    strategy: StrategyName = None,
    bulk: Bulk = False,
    hedge: Hedge = None,
    max_age: MaxAge = None,
    whole: Whole = False,
    url: Url = None,
    one_line: OneLine = False,
) -> None:
    """Asks for one read, and prints the data as JSON; an error goes to standard error, with all attempts."""
    from . import asked

    # An option that is none stands where the method or the symbol was expected, if that is not there.
    unknown = [*(each for each in (method, symbol or "") if each.startswith("-")), *words.args]
    if unknown:
        options = [name for each in words.command.params for name in each.opts]
        raise typer.BadParameter(asked.unknown_word(unknown[0], options))
    request = asked.request(
        method,
        asked.arguments(symbol, arg or []),
        exchanges=asked.names(exchange),
        everyone=everyone,
        account=account,
        strategy=strategy,
        deadline_s=deadline,
        bulk=bulk,
        hedge_s=hedge,
        max_age_ms=max_age,
    )
    answers = output.run(asked.ask(broker_urls(url), request))
    show: Any = output.show_json_line if one_line else output.show_json
    if whole:
        wholes = [asked.plain(answer) for answer in answers]
        show(wholes if everyone else wholes[0])
    elif everyone:
        show({answer.exchange or "": answer.data for answer in answers if answer.ok})
    elif answers[0].ok:
        show(answers[0].data)
    for answer in answers:
        if not answer.ok:
            output.say(asked.told(answer))
        elif output.talks():
            output.say(asked.how(answer))
    if not all(answer.ok for answer in answers):
        raise typer.Exit(output.WRONG)


def http(
    address: Annotated[str, typer.Argument(metavar="URL", help="the whole address, with its query")],
    exchange: Annotated[
        list[str],
        typer.Option("--exchange", "-e", help="the exchange whose API it is", autocompletion=complete_exchange),
    ],
    post: Annotated[str | None, typer.Option(help="send this with a POST, for reads that have no GET")] = None,
    deadline: Deadline = DEADLINE_S,
    strategy: StrategyName = None,
    bulk: Bulk = False,
    hedge: Hedge = None,
    max_age: Annotated[
        int | None,
        typer.Option(
            parser=age_ms,
            metavar="SECONDS",
            help="the answer to an equal call will do that is no older",
        ),
    ] = None,
    whole: Whole = False,
    url: Url = None,
    one_line: Annotated[bool, typer.Option("--json", help="status, headers and body as JSON on one line")] = False,
) -> None:
    """Has the fleet make one HTTP call of an exchange's public API, and prints the body to the letter."""
    from ..client.http import HttpAnswer
    from . import asked

    request = asked.call(
        address,
        exchanges=asked.names(exchange),
        post=post,
        strategy=strategy,
        deadline_s=deadline,
        bulk=bulk,
        hedge_s=hedge,
        max_age_ms=max_age,
    )
    (answer,) = output.run(asked.ask(broker_urls(url), request))
    if whole:
        show: Any = output.show_json_line if one_line else output.show_json
        show(asked.plain(answer))
    if not answer.ok:
        output.say(asked.told(answer))
        raise typer.Exit(output.WRONG)
    came = HttpAnswer.of(answer.data, answer.age_ms)
    if one_line and not whole:
        output.show_json_line(answer.data)
    elif not whole:
        output.out_body(came.content)
    if came.status >= BAD_REQUEST:
        output.say(f"{answer.lane} answered with status {came.status}")
        raise typer.Exit(output.WRONG)
    if output.talks():
        output.say(asked.how(answer))


def map_file(
    file: Annotated[str, typer.Argument(help="requests, one JSON object a line; - reads standard input")],
    exchange: Exchanges = None,
    deadline: Deadline = MAP_DEADLINE_S,
    concurrency: Annotated[int, typer.Option(min=1, max=100_000, help="how many are under way")] = CONCURRENCY,
    account: Account = None,
    strategy: StrategyName = None,
    bulk: Bulk = False,
    max_age: MaxAge = None,
    whole: Whole = True,
    url: Url = None,
    one_line: Annotated[bool, typer.Option("--raw", "--json", help="as it is in any case: JSON lines")] = False,
) -> None:
    """Asks for many: requests in, results out as they come, with their ids. Options fill what lines lack."""
    from . import asked

    del one_line
    with asked.opened(file) as lines:
        requests = asked.Requests(
            lines,
            {
                "exchanges": asked.names(exchange),
                "account": account,
                "strategy": strategy,
                "priority": "bulk" if bulk else "live",
                "max_age_ms": max_age,
            },
        )
        counted = output.run(
            asked.map_all(broker_urls(url), requests, deadline_s=deadline, concurrency=concurrency, whole=whole)
        )
    output.say(counted.told())
    if counted.wrong:
        raise typer.Exit(output.WRONG)


def tail(
    pattern: Annotated[
        str, typer.Argument(help="which, as <exchange>.<method>.<ok or error>; * is one word, # any number")
    ] = "#",
    times: Annotated[int | None, typer.Option(min=1, help="end after so many")] = None,
    url: Url = None,
    one_line: OneLine = False,
) -> None:
    """Reads along: results that go to fleet.results from now on, which are those of requests without a reply_to."""
    from .. import topology
    from . import asked

    try:
        topology.check_pattern(pattern)
    except ValueError as error:
        raise typer.BadParameter(output.plain(str(error)[:300])) from None
    output.run(asked.follow(broker_urls(url), pattern, times, as_json=one_line))
