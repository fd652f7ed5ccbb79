"""When one of several processes that a parent forks is started again. Pure: the clock is an argument."""

import os
import signal
from typing import Final

from msgspec import Struct

# What could not be used will not be usable at once: waits from the first to the longest, each twice the one before.
LEAST_WAIT_S: Final = 0.5
MOST_WAIT_S: Final = 30.0
# A process that has run for so long had started well: its end is the first in a row.
STEADY_S: Final = 30.0
# After so many ends in a row it is said to be ill. One, as of a process that was killed, is mended by the next start.
ILL_AFTER: Final = 3
# What a process ends with that no start could mend but one with another configuration (EX_CONFIG in sysexits.h).
PERMANENT_EXIT: Final = 78


class Slot(Struct):
    """The place of one process, whichever it is now.

    Args:
        number: from 1; it stays when the process is another one.
        pid: its process, None while there is none.
        starts: how many processes it has had.
        row: how many of them ended in a row, each soon after its start.
        why: how the last one ended; empty before.
        permanent: the last one ended with `PERMANENT_EXIT`.
        began_s: when the present one, or the last, was started, by the monotonic clock.
        due_s: when the next one is to be started.
    """

    number: int
    pid: int | None = None
    starts: int = 0
    row: int = 0
    why: str = ""
    permanent: bool = False
    began_s: float = 0.0
    due_s: float = 0.0

    def began(self, pid: int, now_s: float) -> None:
        """A process was started."""
        self.pid, self.began_s = pid, now_s
        self.starts += 1

    def ended(self, status: int, now_s: float) -> float:
        """The process has ended with this status of `os.waitpid`; returns the time until the next is started."""
        self.pid = None
        self.why, code = how(status), os.waitstatus_to_exitcode(status)
        self.permanent = code == PERMANENT_EXIT
        self.row = 1 if now_s - self.began_s >= STEADY_S else self.row + 1
        wait_s = min(MOST_WAIT_S, LEAST_WAIT_S * 2.0 ** (self.row - 1))
        self.due_s = now_s + wait_s
        return wait_s

    def due(self, now_s: float) -> bool:
        """Whether a process is to be started."""
        return self.pid is None and now_s >= self.due_s

    def ill(self, now_s: float) -> str:
        """Why it is ill: it ended again and again, and the present process has not lasted yet. Empty if it is not."""
        if self.row < ILL_AFTER or (self.pid is not None and now_s - self.began_s >= STEADY_S):
            return ""
        next_s = "" if self.pid else f", the next starts in {max(0.0, self.due_s - now_s):.0f} s"
        return f"ended {self.row} times in a row, last {self.why}{next_s}"


def how(status: int) -> str:
    """How a process ended, by its status of `os.waitpid`."""
    code = os.waitstatus_to_exitcode(status)
    return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
