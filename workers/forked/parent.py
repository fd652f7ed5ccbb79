"""The parent: forks the workers and the process of their common port, starts again what ends, stops all together.

It has no event loop, no thread and no connection, so nothing of the kind is shared with what it forks, then or later.
It waits for signals (`signal.sigtimedwait`), which are blocked. Each process has a connection to it, over which it is
told to stop or to read the configuration again. The end of that says that the parent has ended: then it stops in order
too. A signal would not do for that: Ctrl-C and systemd send theirs to all processes, and a second one ends a process at
once. Now and then the parent writes a word that says nothing. Where that is not read the process hangs, and is killed.
"""

import contextlib
import fcntl
import gc
import logging
import os
import signal
import socket
import struct
import sys
import termios
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct, json

from schemas.runtime import logs
from schemas.runtime.processes import FORCED_EXIT, LOOK, RELOAD, SIGNALS, STOP

from .slot import ILL_AFTER, Slot

log = logging.getLogger(__name__)

# The name of the process that serves the common port.
PORT: Final = "port"
# What the port was not told is told after so long.
TELL_AGAIN_S: Final = 0.5
# How long the port has to end.
LEAVING_S: Final = 2.0
# How often it looks which processes have read what it wrote. One that has not so many times in a row hangs: for half a
# minute, by looks, as this process may have stood still itself.
LOOK_EVERY_S: Final = 2.0
HUNG_LOOKS: Final = 15
_UNREAD: Final = struct.Struct("i")


class News(Struct):
    """What the parent tells the process that serves the port.

    Args:
        workers: their places, and where each serves its own pages, the name of an abstract Unix socket.
        stopping: the parent stops; what has ended is not started again.
    """

    workers: list[tuple[Slot, str]]
    stopping: bool


class Child(Struct, eq=False):
    """One process that is kept running.

    Args:
        name: as in logs and in the label `process`.
        slot: its place.
        work: what it does: it gets its connection to the parent and the socket that its pages are served on, and
            returns its exit code.
        pages: that socket.
        line: our end of the connection, None while there is no process.
        silent: how many looks in a row it had not read what was written.
    """

    name: str
    slot: Slot
    work: Callable[[socket.socket, socket.socket], int]
    pages: socket.socket
    line: socket.socket | None = None
    silent: int = 0

    def runs(self) -> bool:
        """Whether the process has read all that was written to it; writes something more then."""
        if self.line is None:
            return True
        unread: int = _UNREAD.unpack(fcntl.ioctl(self.line, termios.TIOCOUTQ, _UNREAD.pack(0)))[0]
        if not unread:
            self.tell(LOOK)
        return unread == 0

    def tell(self, word: bytes) -> bool:
        """Tells the process something; returns whether there was room for it. One that has ended is not told."""
        if self.line is None:
            return True
        try:
            self.line.send(word)
        except BlockingIOError:
            return False
        except OSError:  # it has ended, as is about to be seen
            return True
        return True


class Parent:
    """Keeps processes running until a signal comes.

    Args:
        workers: what each of the workers does; see `Child.work`.
        port: what the process does that serves the common port, None for none.
    """

    def __init__(
        self,
        workers: Sequence[Callable[[socket.socket, socket.socket], int]],
        port: Callable[[socket.socket, socket.socket], int] | None,
    ) -> None:
        self._workers = [_child(str(number), number, work) for number, work in enumerate(workers, 1)]
        self._port = None if port is None else _child(PORT, 0, port)
        self._stopping = False
        self._told = b""  # the news that the port has
        self._look_s = time.monotonic() + LOOK_EVERY_S
        self._code = 0

    @property
    def _all(self) -> list[Child]:
        return [*([self._port] if self._port else []), *self._workers]

    def run(self) -> int:
        """Runs until all have ended after a signal, or until no start could help.

        Returns:
            The exit code: 0 if all ended in order.
        """
        gc.freeze()
        gc.enable()
        while self._serves():
            self._start()
            told = self._tell_port()
            said = signal.sigtimedwait({*SIGNALS, signal.SIGCHLD}, self._next_s() if told else TELL_AGAIN_S)
            if said is not None and said.si_signo == signal.SIGHUP:
                for child in self._workers:
                    child.tell(RELOAD)
            elif said is not None and said.si_signo != signal.SIGCHLD:
                self._on_stop()
            self._reap()
            self._look()
        self._end_port()
        log.info("parent_left", extra={"exit_code": self._code})
        return self._code

    def _end_port(self) -> None:
        if self._port is None or self._port.slot.pid is None:
            return
        assert self._port.line is not None
        self._port.line.close()
        signal.sigtimedwait({signal.SIGCHLD}, LEAVING_S)
        os.kill(self._port.slot.pid, signal.SIGKILL)  # no harm where it has ended: it is there until we wait for it
        os.waitpid(self._port.slot.pid, 0)

    def _serves(self) -> bool:
        return not self._stopping or any(child.slot.pid for child in self._workers)

    def _next_s(self) -> float:
        """The time until the next process is to be started, or all are looked at."""
        waiting = [] if self._stopping else [child.slot.due_s for child in self._all if child.slot.pid is None]
        return max(0.0, min([self._look_s, *waiting]) - time.monotonic())

    def _look(self) -> None:
        """Kills what hangs: as after any other end, another process takes its place."""
        if time.monotonic() < self._look_s:
            return
        self._look_s = time.monotonic() + LOOK_EVERY_S
        for child in self._all:
            if child.slot.pid is None:
                continue
            child.silent = 0 if child.runs() else child.silent + 1
            if child.silent == HUNG_LOOKS:
                log.error("process_hung", extra={"of": child.name, "silent_s": HUNG_LOOKS * LOOK_EVERY_S})
                os.kill(child.slot.pid, signal.SIGKILL)

    def _on_stop(self) -> None:
        if self._stopping:
            log.warning("forced_exit")
            for child in self._all:
                if child.slot.pid is not None:
                    os.kill(child.slot.pid, signal.SIGKILL)
            os._exit(FORCED_EXIT)
        log.info("parent_stopping")
        self._stop()

    def _stop(self) -> None:
        self._stopping = True
        for child in self._workers:
            if not child.tell(STOP) and child.line is not None:
                child.line.close()  # says the same

    def _start(self) -> None:
        if self._stopping:
            return
        for child in self._all:
            if child.slot.due(time.monotonic()):
                self._fork(child)

    def _fork(self, child: Child) -> None:
        # Whole messages, as datagrams are, and an end, as a stream has.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            theirs.close()
            ours.setblocking(False)
            child.line, child.silent = ours, 0
            child.slot.began(pid, time.monotonic())
            return
        code = 1
        try:
            ours.close()
            code = self._be(child, theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            # Not through the parent's frames, which are above us, and not through its `atexit`.
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _be(self, child: Child, line: socket.socket) -> int:
        """What the forked process does, until its end."""
        for other in self._all:
            # Another's connection that was open here too would not end with the parent.
            if other.line is not None:
                other.line.close()
            if other is not child:
                other.pages.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        logs.setup(process=child.name)
        return child.work(line, child.pages)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for child in self._all:
                if child.slot.pid == pid:
                    self._on_end(child, status)

    def _on_end(self, child: Child, status: int) -> None:
        if child.line is not None:
            child.line.close()
            child.line = None
        slot = child.slot
        wait_s = slot.ended(status, time.monotonic())
        if self._stopping:
            if status and child is not self._port:
                self._code = 1
                log.warning("process_ended", extra={"of": child.name, "how": slot.why, "again_in_s": None})
            return
        if self._permanent(child):
            # It has said why, and what to change.
            log.error("processes_refused", extra={"of": child.name, "how": slot.why})
            self._code = 1
            self._stop()
            return
        level = logging.ERROR if slot.row >= ILL_AFTER else logging.WARNING
        log.log(level, "process_ended", extra={"of": child.name, "how": slot.why, "again_in_s": wait_s})

    def _permanent(self, child: Child) -> bool:
        """Whether no start could help: no worker could use the configuration, or there never was a port."""
        if child is self._port:
            return child.slot.permanent and child.slot.starts == 1
        return all(each.slot.permanent and each.slot.pid is None for each in self._workers)

    def _tell_port(self) -> bool:
        """Tells the port what has changed; returns whether it knows."""
        if self._port is None or self._port.line is None:
            self._told = b""
            return True
        news = json.encode(News([(each.slot, _address(each.pages)) for each in self._workers], self._stopping))
        if news != self._told and self._port.tell(news):
            self._told = news
        return news == self._told


def _child(name: str, number: int, work: Callable[[socket.socket, socket.socket], int]) -> Child:
    # Made here and once, so that it stays the same. It needs no file: Linux gives it a name (unix(7), autobind).
    pages = socket.socket(socket.AF_UNIX)
    pages.bind("")
    pages.listen()
    return Child(name, Slot(number), work, pages)


def _address(pages: socket.socket) -> str:
    return bytes(pages.getsockname()).decode()
