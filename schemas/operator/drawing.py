"""How `top` draws what there is to show, in a terminal of any size. *Pure*."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from . import output
from .board import ordered
from .shapes import TopLane, TopView

BAR: Final = 10
HELP: Final = "q quit   s sort by the next column   r reverse"
# Between two columns.
_GAP: Final = 2
# What a reason needs to say anything; it has all the room that is left.
_WHY: Final = 12
# Lines that are no lanes: the head (it may take two), the columns' names, queues (may take two), the keys, blanks,
# and shared answers.
_OTHER_LINES: Final = 9


class Column(Struct, frozen=True):
    """A column of lanes.

    Args:
        name: as it is shown.
        sort: the order that it stands for, see `board.SORTS`.
        leaves: where there is no room for all, columns leave in this order; 0 for those that stay.
        words: whether it begins at the left.
    """

    name: str
    sort: str = ""
    leaves: int = 0
    words: bool = False


BARS: Final = Column("", leaves=1, words=True)
WHY: Final = Column("why not", leaves=8, words=True)
COLUMNS: Final = (
    Column("lane", "lane", words=True),
    Column("state", words=True),
    Column("ok/s", "rate"),
    Column("err/s", "errors", 6),
    Column("no budget/s", leaves=4),
    Column("latency", "latency", 7),
    Column("in flight", leaves=3),
    Column("waiting", "waiting", 5),
    Column("share", leaves=2),
    BARS,
    Column("fullest limit", "budget", words=True),
    WHY,
)


def drawn(view: TopView, sort: str, backwards: bool, width: int, height: int) -> RenderableType:
    """What is on the screen.

    Args:
        view: what there is to show.
        sort: one of `board.SORTS`.
        backwards: whether the order is reversed.
        width: how many characters a line has.
        height: how many lines there are.
    """
    return Group(
        _head(view),
        Text(""),
        _lanes(view, sort, backwards, width, height),
        Text(""),
        _queues(view),
        *_shared(view),
        Text(HELP, "dim"),
    )


def _head(view: TopView) -> RenderableType:
    text = Text()
    for name, server in (("RabbitMQ", view.rabbitmq), ("Redis", view.redis)):
        said = server.error.splitlines()[0] if server.error else f"{server.version or name} at {server.place}"
        text.append(f"{output.plain(said)}   ", style="red" if server.error else "")
    text.append(f"{output.many(view.dispatchers, 'dispatcher')}   {output.many(view.workers, 'worker')}   ")
    text.append(output.when(view.at_ms).removesuffix("+00:00"), style="dim")
    return text


def _lanes(view: TopView, sort: str, backwards: bool, width: int, height: int) -> RenderableType:
    lanes = ordered(view.lanes, sort, backwards=backwards)
    room = max(1, height - _OTHER_LINES)
    shown = lanes if len(lanes) <= room else lanes[: room - 1]
    mark = " ▲" if backwards else " ▼"
    names = {each: each.name + (mark if each.sort == sort else "") for each in COLUMNS}
    columns = fitting(names, [_cells(lane) for lane in lanes], width)
    table = Table(box=None, pad_edge=False, expand=True, header_style="bold")
    for each in columns:
        ratio = 1 if each is columns[-1] else None
        table.add_column(names[each], justify="left" if each.words else "right", no_wrap=True, ratio=ratio)
    for lane in shown:
        cells = _cells(lane)
        table.add_row(*(Text(cells[each], _style(each, lane)) for each in columns))
    left = len(lanes) - len(shown)
    return (
        Group(table, Text(f"… and {output.many(left, 'lane')} more: the screen has no room", "dim")) if left else table
    )


def fitting(names: dict[Column, str], rows: Sequence[dict[Column, str]], width: int) -> list[Column]:
    """The columns that there is room for: as many as fit, without those that leave first.

    Args:
        names: of all columns, as they are shown.
        rows: the cells of each row.
        width: how many characters a line has.
    """
    widest = {each: max(len(name), *(len(row[each]) for row in rows), 0) for each, name in names.items()}
    widest[WHY] = _WHY if any(row[WHY] for row in rows) else 0
    columns = list(names)
    while sum(widest[each] + _GAP for each in columns if widest[each]) - _GAP > width:
        spare = [each for each in columns if each.leaves]
        if not spare:
            break
        columns.remove(min(spare, key=lambda each: each.leaves))
    return [each for each in columns if each is not WHY or widest[WHY]]


def _cells(lane: TopLane) -> dict[Column, str]:
    full = round(lane.used_part * BAR)
    told = (
        output.plain(lane.lane),
        lane.state,
        f"{lane.ok_per_s:.1f}",
        f"{lane.failed_per_s:.1f}",
        f"{lane.throttled_per_s:.1f}",
        f"{lane.latency_ms:.0f} ms" if lane.latency_ms else "",
        str(lane.in_flight),
        str(lane.waiting + lane.queued),
        f"{lane.share:.0%}",
        f"{'█' * full}{'░' * (BAR - full)}" if lane.bucket else "",
        output.plain(f"{lane.used_part:>4.0%} {lane.bucket}") if lane.bucket else "",
        output.plain(lane.why),
    )
    return dict(zip(COLUMNS, told, strict=True))


def _style(column: Column, lane: TopLane) -> str:
    if column.name == "state":
        return output.COLOURS.get(lane.state, "")
    of_budget = column is BARS or column.sort == "budget"
    return "red" if of_budget and lane.used_part > 0.9 else ""


def _queues(view: TopView) -> RenderableType:
    said = "   ".join(f"{each.name} {each.messages:,}" for each in view.queues)
    return Text(f"queues  {output.plain(said) or 'empty'}")


def _shared(view: TopView) -> list[Text]:
    shared = view.shared
    if not (shared.asked_per_s or shared.waited_per_s or shared.cached_per_s):
        return []
    rates = (
        f"{shared.asked_per_s:,.1f}/s asked   {shared.waited_per_s:,.1f}/s waited   {shared.cached_per_s:,.1f}/s cached"
    )
    return [Text(f"shared answers  {rates}")]
