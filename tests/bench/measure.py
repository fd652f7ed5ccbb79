"""What the benchmarks share: CPU time of processes, percentiles, and a table with the aims."""

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """The CPU time a process has used so far, user and system (fields 14 and 15 of /proc/<pid>/stat, proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


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


def show(title: str, rows: Sequence[Row]) -> None:
    """Prints a table, and says clearly which aims were missed."""
    verdict = {None: "", True: "met", False: "MISSED"}
    lines = [("", "ours", "reference", "compared", "aim", "")]
    for row in rows:
        reference = "" if row.reference is None else _figure(row.reference)
        lines.append((row.what, _figure(row.ours), reference, row.compared, row.aim, verdict[row.met]))
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    print(f"\n{title}")
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip(), flush=True)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
