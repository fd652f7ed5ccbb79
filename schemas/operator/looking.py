"""The commands that look at the fleet: `status`, `lanes`, `budget`."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from . import output
from .options import Exchange, Json, RedisUrl, Url, broker_urls, redis_url, selects

if TYPE_CHECKING:
    from ..status import SharedAnswers
    from .picture import Picture
    from .shapes import BucketView, LaneView, PauseView, ProcessView, StatusView

# How often `budget --watch` looks.
WATCH_S: Final = 1.0


def status(url: Url = None, redis: RedisUrl = None, as_json: Json = False) -> None:
    """Who is there: RabbitMQ, Redis, dispatchers and workers, with versions and since when; what waits in queues."""
    from . import picture as pictures

    picture = output.run(pictures.taken(broker_urls(url), redis_url(redis)))
    view = status_of(picture)
    if as_json:
        output.show_json(view)
    else:
        _show_status(view)
    if view.rabbitmq.error or view.redis.error:
        raise typer.Exit(output.AWAY)
    if not view.dispatchers or not view.workers:
        raise typer.Exit(output.WRONG)


def status_of(picture: "Picture") -> "StatusView":
    """A picture as ``status`` shows it."""
    from .shapes import StatusView

    return StatusView(
        picture.rabbitmq,
        picture.redis,
        picture.dispatchers(),
        picture.dispatcher_views(),
        picture.worker_views(),
        list(picture.queues.values()),
        _sum_of(picture.shared().values()),
    )


def _sum_of(counts: "Iterable[SharedAnswers]") -> "SharedAnswers":
    from ..status import SharedAnswers

    each = list(counts)
    names = ("asked", "waited", "cached", "alone")
    return SharedAnswers(**{name: sum(getattr(one, name) for one in each) for name in names})


def _show_status(view: "StatusView") -> None:
    rows: list[tuple[object, ...]] = []
    for what, server in (("RabbitMQ", view.rabbitmq), ("Redis", view.redis)):
        # An error has a second line that says what to do.
        state = f"away: {server.error.splitlines()[0].partition(': ')[2]}" if server.error else "ok"
        rows.append((what, server.place, server.version, _since(server.since_ms), state))
    for what, processes in (("dispatcher", view.dispatcher_processes), ("worker", view.workers)):
        rows += ((what, each.name, _version(each), _since(each.since_ms), _state(each)) for each in processes)
    output.table(("what", "name", "version", "since (UTC)", "state"), rows)
    # What one worker says of a lane, others mostly say too.
    unopened = {lane: why for each in view.workers for lane, why in each.unopened.items()}
    for lane, why in unopened.items():
        output.out(output.plain(f"{lane} has not opened: {why}"))
    waiting = [each for each in view.queues if each.messages]
    output.out("")
    if waiting:
        output.table(
            ("queue", "messages", "consumers"), ((each.name, each.messages, each.consumers) for each in waiting)
        )
    elif view.queues:
        output.out("nothing waits in the queues")
    shared = view.shared
    if shared.asked or shared.waited or shared.cached:
        calls = f"{shared.asked + shared.alone:,} asked an exchange, {shared.waited:,} waited for one of these"
        output.out(f"of the requests that may share answers {calls}, {shared.cached:,} took one from Redis")
    for line in _status_notes(view):
        output.say(line)


def _status_notes(view: "StatusView") -> Iterator[str]:
    for server in (view.rabbitmq, view.redis):
        if server.error:
            yield server.error
    if view.rabbitmq.error:
        return
    silent = view.dispatchers - len(view.dispatcher_processes)
    if silent > 0 and not view.redis.error:
        which = f"{silent} more dispatchers consume" if silent > 1 else "1 more dispatcher consumes"
        yield f"{which} fleet.returned, without a word in this Redis: is it the fleet's?"
    if not view.dispatchers:
        yield "no dispatcher is there: requests wait. Start one: `ccxt-fleet dispatcher --config FILE`"
    if not view.workers:
        yield "no worker is there: every lane is offline. Start one: `ccxt-fleet worker --config FILE`"


def _version(process: "ProcessView") -> str:
    return process.version + (f", ccxt {process.ccxt}" if process.ccxt else "")


def _since(at_ms: int | None) -> str:
    return output.when(at_ms or 0).removesuffix("+00:00")


def _state(process: "ProcessView") -> str:
    if process.unready:
        return f"not ready: {process.unready}"
    if process.configuration_error:
        return f"old configuration in use: {process.configuration_error}"
    every = process.lanes + len(process.unopened)
    return (
        f"ok, {process.lanes} of {every} lanes open"
        if process.unopened
        else f"ok, {output.many(process.lanes, 'lane')}"
    )


def lanes(exchange: Exchange = None, url: Url = None, redis: RedisUrl = None, as_json: Json = False) -> None:
    """How each lane is: its state and why, latency, its share of the requests; why it has not opened."""
    from . import picture as pictures

    picture = output.run(pictures.taken(broker_urls(url), redis_url(redis), queues=False))
    away = tell_away(picture)
    fits = selects(exchange)
    views = [each for each in picture.lanes() if fits(each.lane, each.exchange)]
    if exchange and not views:
        _no_lane(exchange, picture, away)
    if as_json:
        output.show_json(views)
    else:
        output.table(
            ("lane", "state", "share", "workers", "in flight", "waiting", "latency", "why not"),
            (_lane_row(each) for each in views),
        )
    if not views:
        output.fail("nobody reports a lane: is a worker there? `ccxt-fleet status` says", away or output.WRONG)
    if away:
        raise typer.Exit(away)


def _no_lane(exchange: str, picture: "Picture", away: int) -> NoReturn:
    known = ", ".join(picture.lane_names()) or "none"
    output.fail(f"no lane {exchange!r}; there are: {known}", away or output.WRONG)


def _lane_row(lane: "LaneView") -> tuple[object, ...]:
    return (
        lane.lane,
        lane.state,
        f"{lane.share:.0%}",
        lane.workers,
        lane.in_flight,
        lane.waiting,
        f"{lane.latency_ms:.0f} ms" if lane.latency_ms else "",
        why_not(lane),
    )


def why_not(lane: "LaneView") -> str:
    """Why a lane is not as it should be, in one line; empty where it is."""
    parts = [lane.reason] if lane.reason else []
    if lane.paused_until_ms is not None:
        left_s = max(0.0, lane.paused_until_ms / 1000 - time.time())
        parts.append(f"paused for {output.duration(left_s)}" + (f" by {lane.paused_by}" if lane.paused_by else ""))
    if lane.trial_in_s is not None:
        parts.append(f"next trial in {lane.trial_in_s:.1f} s")
    if lane.unopened and not any("has not opened" in part for part in parts):
        name, why = next(iter(lane.unopened.items()))
        parts.append(f"has not opened at {name}: {why}")
    return "; ".join(parts)


def tell_away(picture: "Picture") -> int:
    """Says which server is away; where RabbitMQ and Redis both are, the command ends.

    Returns:
        The exit code for what can be shown without one of them; 0 where both are there.
    """
    away = [each.error for each in (picture.rabbitmq, picture.redis) if each.error]
    for text in away:
        output.say(text)
    if len(away) == 2:
        raise typer.Exit(output.AWAY)
    return output.AWAY if away else output.OK


def budget(
    exchange: Exchange = None,
    watch: Annotated[bool, typer.Option("--watch", help="look again every second, until Ctrl-C")] = False,
    url: Url = None,
    redis: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """How much of every limit is in use: each bucket's count, what it may hold now, and pauses."""
    from . import picture as pictures
    from .shapes import BudgetView

    fits, code = selects(exchange), output.OK

    def show(picture: "Picture") -> None:
        nonlocal code
        code = tell_away(picture)
        if exchange and not any(fits(each, each.partition(".")[0]) for each in picture.lane_names()):
            _no_lane(exchange, picture, code)
        buckets = [each for each in picture.bucket_views() if fits(each.lane, each.lane.partition(".")[0])]
        pauses = None
        if picture.pauses is not None:
            pauses = [pause_view(each) for each in picture.pauses if fits("", each.exchange)]
        parts = {lane: part for lane, part in picture.own_parts().items() if fits(lane, lane.partition(".")[0])}
        if as_json:
            view = BudgetView(buckets, pauses, parts)
            (output.show_json_line if watch else output.show_json)(view)
        else:
            _show_budget(buckets, pauses, parts)

    async def look() -> None:
        again = pictures.taken_again(broker_urls(url), redis_url(redis), every_s=WATCH_S)
        async with contextlib.aclosing(again):
            async for picture in again:
                if watch and not as_json and output.is_terminal():
                    output.clear()
                show(picture)
                if not watch:
                    return

    output.run(look())
    if code:
        raise typer.Exit(code)


def pause_view(pause: object) -> "PauseView":
    """A pause as it is shown."""
    from .pauses import Pause
    from .shapes import PauseView

    assert isinstance(pause, Pause)
    return PauseView(pause.exchange, pause.place, pause.bucket, round(pause.left_s, 1), pause.source, pause.reason)


def _show_budget(buckets: "list[BucketView]", pauses: "list[PauseView] | None", parts: dict[str, float]) -> None:
    output.table(("lane", "bucket", "used", "capacity", "limit", "window", "full", "paused"), map(_bucket_row, buckets))
    if not buckets:
        output.out("no bucket is in use")
    for pause in pauses or ():
        output.out(f"paused: {pause_line(pause)}")
    for lane, part in parts.items():
        output.out(f"{lane}: Redis is away for a worker, which keeps to {part:.1%} of every limit")


def pause_line(pause: "PauseView") -> str:
    """A pause in one line."""
    length = f"{output.duration(pause.left_s)} left" + (f" by {pause.source}" if pause.source else "")
    place = pause.place.removeprefix("fleet:")
    return output.plain(f"{place} {pause.bucket or 'all of it'}, {length}: {pause.reason}")


def _bucket_row(bucket: "BucketView") -> tuple[object, ...]:
    known = bucket.amount > 0  # workers of an older version do not say how much
    return (
        bucket.lane,
        bucket.bucket,
        f"{bucket.used:g}" if known else "",
        f"{bucket.capacity:g}" if known else "",
        f"{bucket.amount:g}" if known else "",
        f"{bucket.window_s:g} s" if known else "",
        f"{bucket.used_part:.0%}",
        output.duration(bucket.paused_s) if bucket.paused_s else "",
    )
