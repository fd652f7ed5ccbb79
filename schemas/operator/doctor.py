"""`doctor`: looks at everything that a command can reach, and says what to do about what is wrong."""

import contextlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

import typer

from . import output
from .options import Json, RedisUrl, Url, broker_urls, redis_url

if TYPE_CHECKING:
    from .picture import Picture
    from .shapes import Finding, LaneView

# Deadlines are points in time: a clock that is off by more makes them too early or too late.
CLOCK_S: Final = 1.0


def doctor(url: Url = None, redis: RedisUrl = None, as_json: Json = False) -> None:
    """What is wrong, and what to do: RabbitMQ, Redis, clocks, dispatchers and workers, each lane, dead letters."""
    from .shapes import FindingsView

    findings = output.run(_examine(broker_urls(url), redis_url(redis)))
    view = FindingsView(not any(each.level == "wrong" for each in findings), findings)
    show(view.findings, as_json=as_json, view=view)
    if not view.ok:
        raise typer.Exit(output.WRONG)


def show(findings: "Collection[Finding]", *, as_json: bool, view: object) -> None:
    """Prints findings, and how many are wrong."""
    if as_json:
        output.show_json(view)
        return
    width = max((len(each.about) for each in findings), default=0)
    for each in findings:
        line = f"{each.level:<6} {output.plain(each.about):<{width}}  {output.plain(each.says)}"
        output.out(output.coloured(line, [each.level]))
        if each.do:
            output.out(f"{'':<6} {'':<{width}}  → {output.plain(each.do)}")
    wrong = sum(each.level == "wrong" for each in findings)
    output.say(f"{wrong} wrong" if wrong else "nothing is wrong")


async def _examine(urls: tuple[str, ...], redis: str) -> "list[Finding]":
    from ..urls import place
    from . import ill_rabbitmq, ill_redis, picture, servers
    from .servers import ServerAway
    from .shapes import Finding, ServerView

    seen = picture.Picture()
    found: list[Finding] = []
    await picture.look_at_redis(redis, seen)
    try:
        async with picture.listening(urls, seen) as connection:
            found.append(ill_rabbitmq.version(f"{seen.rabbitmq.version} at {seen.rabbitmq.place}"))
            await picture.listen(seen, redis)
            found += await ill_rabbitmq.exchanges(connection)
            more, seen.queues = await ill_rabbitmq.queues(connection, seen.lane_names())
            found += [*more, alarms := await ill_rabbitmq.takes_messages(urls)]
            if alarms.level == "ok" and (off := await ill_rabbitmq.clock_s(connection)) is not None:
                found.append(clock("RabbitMQ's", *off))
    except ServerAway as error:
        seen.rabbitmq = ServerView(place(urls[0]), error=str(error))
        found.append(_away("RabbitMQ", error))
    try:
        async with servers.redis_at(redis) as client:
            found += await ill_redis.look(client)
            found += [clock(*each) for each in await ill_redis.clocks_s(client)]
    except ServerAway as error:
        found.append(_away("Redis", error))
    return [*found, *of_fleet(seen)]


def _away(about: str, error: Exception) -> "Finding":
    from .shapes import Finding

    says, _, do = str(error).partition("\n")
    return Finding(about, "wrong", says, do.replace("\n", "; "))


def clock(whose: str, least_s: float, most_s: float) -> "Finding":
    """Of this machine's clock beside another one, which it is ahead of by so much at least and at most."""
    from .shapes import Finding

    off_s = least_s if least_s > 0 else min(0.0, most_s)
    if abs(off_s) <= CLOCK_S:
        return Finding("clock", "ok", f"this machine's agrees with {whose}")
    way = "ahead of" if off_s > 0 else "behind"
    text = f"this machine's is {abs(off_s):.1f} s {way} {whose}"
    return Finding("clock", "wrong", text, "synchronise both machines (chrony, systemd-timesyncd): deadlines are times")


def of_fleet(seen: "Picture") -> "Iterator[Finding]":
    """What the fleet itself says: processes, lanes, dead letters."""
    from ..topology import DEAD
    from .shapes import Finding

    if not (seen.rabbitmq.error and seen.redis.error):  # else nothing is known of it
        yield from _there(seen)
    yield from _alike(seen)
    yield from _workers(seen)
    lanes = seen.lanes()
    if seen.redis.error:
        silent = [lane for lane in lanes if lane.state == "unknown" and not lane.unopened]
        lanes = [lane for lane in lanes if lane not in silent]
        if silent:
            text = (
                f"open at workers: {', '.join(lane.lane for lane in silent)}; how dispatchers find them stands in Redis"
            )
            yield Finding("lanes", "note", text)
    ill = [finding for lane in lanes if (finding := of_lane(lane)) is not None]
    yield from ill
    healthy = [lane.lane for lane in lanes if lane.state == "healthy"]
    if healthy:
        yield Finding("lanes", "ok", f"open and healthy: {', '.join(healthy)}")
    with contextlib.suppress(KeyError):
        if letters := seen.queues[DEAD].messages:
            text = f"{letters:,} messages could not be used, or killed what took them"
            yield Finding("dead letters", "wrong", text, "`ccxt-fleet dead list` shows them; replay them, or drop them")
        else:
            yield Finding("dead letters", "ok", "none")


def _there(seen: "Picture") -> "Iterator[Finding]":
    from .shapes import Finding

    if dispatchers := seen.dispatchers():
        more = "" if dispatchers > 1 else "; two survive the loss of one"
        yield Finding("dispatchers", "ok", f"{dispatchers} there{more}")
    else:
        do = "`ccxt-fleet dispatcher --config FILE`"
        yield Finding("dispatchers", "wrong", "none is there: requests wait in fleet.requests", do)
    if workers := len(seen.worker_views()):
        yield Finding("workers", "ok", f"{workers} there")
    else:
        yield Finding("workers", "wrong", "none is there: every lane is offline", "`ccxt-fleet worker --config FILE`")


def _alike(seen: "Picture") -> "Iterator[Finding]":
    """Whether all processes have one version and one configuration, and serve."""
    from ..version import VERSION
    from .shapes import Finding

    processes = [*seen.dispatcher_views(), *seen.worker_views()]
    for each in processes:
        if each.unready:
            do = "see its log, and what else is wrong here"
            yield Finding("processes", "wrong", f"{each.name} does not serve: {each.unready}", do)
        if each.configuration_error:
            text = f"{each.name} refuses its configuration file, and goes on with the old one: "
            yield Finding("configuration", "wrong", text + each.configuration_error, "`ccxt-fleet config check FILE`")
    for what, named, level, do in (
        ("versions", {each.version for each in processes if each.version}, "wrong", "install one version everywhere"),
        ("ccxt", {each.ccxt for each in processes if each.ccxt}, "wrong", "install one version of ccxt everywhere"),
        (
            "configuration",
            {each.configuration for each in processes if each.configuration},
            "wrong",
            "give all processes the same file; `ccxt-fleet status --json` says which has which",
        ),
    ):
        if len(named) > 1:
            yield Finding(what, level, f"processes differ: {', '.join(sorted(named))}", do)
        elif named:
            yield Finding(what, "ok", f"all processes have {next(iter(named))}")
    if others := {each.version for each in processes} - {VERSION, ""}:
        do = "install that version here too, or update the fleet"
        yield Finding("versions", "note", f"this command is of {VERSION}, the fleet of {', '.join(sorted(others))}", do)


def _workers(seen: "Picture") -> "Iterator[Finding]":
    from .shapes import Finding

    for name, each in seen.reports.items():
        off_s = each.behind_ms / 1000
        if abs(off_s) > CLOCK_S:
            way = "behind" if off_s > 0 else "ahead of"
            text = f"the one of {name} is {abs(off_s):.1f} s {way} this machine's, or its reports come late"
            yield Finding("clock", "wrong", text, "synchronise its machine (chrony, systemd-timesyncd)")
    parts = seen.own_parts()
    if parts:
        text = f"some worker has no Redis, and keeps to its share of the limits of {', '.join(parts)}"
        yield Finding("budgets", "wrong", text, "see what Redis says, and `redis_error` in the workers' logs")


def of_lane(lane: "LaneView") -> "Finding | None":
    """What is to be said of a lane; None where it is as it should be."""
    from .looking import why_not
    from .shapes import Finding

    why = why_not(lane)
    about = f"lane {lane.lane}"
    if lane.state == "healthy" and not why:
        return None
    if lane.state == "healthy":  # paused, or not open at some worker
        do = "docs/operations.md, Pauses" if lane.paused_until_ms else "docs/operations.md, Causes"
        return Finding(about, "note", why, do)
    if lane.unopened:
        return Finding(about, "wrong", why, "docs/operations.md, Causes, says what the words mean")
    if lane.state == "unknown":
        return Finding(about, "wrong", why, "is a dispatcher there, and does it reach this Redis?")
    if not lane.workers:
        do = "is a worker there, and is the lane in its configuration?"
        return Finding(about, "wrong", f"{lane.state}: {why}", do)
    if lane.state == "offline":
        do = "the attempts in a result say what failed: `ccxt-fleet call fetch_time --exchange " + lane.exchange + "`"
        return Finding(about, "wrong", f"offline: {why}", do)
    return Finding(about, "note", f"{lane.state}: {why}", "it comes back by itself; docs/health.md says how")
