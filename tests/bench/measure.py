"""What the benchmarks share: their options, CPU time of processes, percentiles, and tables with the aims."""

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

FIRST_COLUMN: Final = 34
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """The CPU time a process has used so far, user and system (fields 14 and 15 of /proc/<pid>/stat, proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def resident_mib(pid: int) -> float:
    """A process's resident memory in MiB (field 2 of /proc/<pid>/statm, proc(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


class Cpu:
    """The CPU time of named processes between its making and `us_each`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = {name: cpu_s(pid) for name, pid in self._pids.items()}

    def us_each(self, messages: int) -> dict[str, float]:
        """Microseconds a message since then, by process; the kernel counts in steps of 10 ms."""
        return {name: (cpu_s(pid) - self._before[name]) / messages * 1e6 for name, pid in self._pids.items()}


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which this part (0 to 1) of them lies, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


class Table:
    """A table whose rows are printed as they come, so that an interrupted run still shows what it has measured.

    Args:
        title: what is measured, and how.
        columns: the words above; the first column is to the left, all others to the right.
        markdown: for a page.
    """

    def __init__(self, title: str, columns: Sequence[str], *, markdown: bool) -> None:
        self._markdown = markdown
        self._widths = [max(len(column), 12) for column in columns]
        self._widths[0] = max(self._widths[0], FIRST_COLUMN)
        print(f"\n{title}")
        if markdown:
            print()
        self._print(columns)
        if markdown:
            self._print(["---"] * len(columns))

    def row(self, *cells: object) -> None:
        """Prints one row; numbers are cut to what can be read."""
        self._print([_cell(cell) for cell in cells])

    def _print(self, cells: Sequence[str]) -> None:
        if self._markdown:
            print(f"| {' | '.join(cells)} |", flush=True)
            return
        placed = [cells[0].ljust(self._widths[0])]
        placed += [cell.rjust(width) for cell, width in zip(cells[1:], self._widths[1:], strict=True)]
        print("  ".join(placed).rstrip(), flush=True)


class Options(Struct, frozen=True):
    """What the command line says.

    Args:
        seconds: how long one measurement takes; None for the benchmark's own.
        rounds: how often those that take rounds repeat them.
        workers: how many worker processes, for those that compare; None for the benchmark's own.
        exchanges: the exchanges, for those that take one after another; None for all.
        faults: the kinds of outage, for those that know several; None for all.
        rate: requests a second; None for the benchmark's own.
        dispatchers: how many dispatcher processes.
        kill: whether one of them is killed in the middle.
        markdown: print tables for a page.
    """

    seconds: float | None = None
    rounds: int = 3
    workers: tuple[int, ...] | None = None
    exchanges: tuple[str, ...] | None = None
    faults: tuple[str, ...] | None = None
    rate: float | None = None
    dispatchers: int = 1
    kill: bool = False
    markdown: bool = False

    def table(self, title: str, *columns: str) -> Table:
        """A table that begins now."""
        return Table(title, columns, markdown=self.markdown)


def met(aim: bool | None) -> str:
    """The word for whether an aim was reached."""
    return {None: "", True: "met", False: "MISSED"}[aim]


class Row(Struct, frozen=True):
    """One line of a table: ours beside the reference of the same run.

    Args:
        what: what was measured, with its unit.
        ours: the fleet's figure.
        reference: the figure it is measured against, None where there is none.
        compared: the two set against each other, as text with its unit.
        aim: what was aimed at, empty where nothing is.
        met: whether it was reached, None where nothing is aimed at.
    """

    what: str
    ours: float
    reference: float | None = None
    compared: str = ""
    aim: str = ""
    met: bool | None = None


def show(options: Options, title: str, rows: Sequence[Row]) -> None:
    """Prints a table of figures beside their reference, and says clearly which aims were missed."""
    table = options.table(title, "", "ours", "reference", "compared", "aim", "")
    for row in rows:
        reference = "" if row.reference is None else row.reference
        table.row(row.what, row.ours, reference, row.compared, row.aim, met(row.met))


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
