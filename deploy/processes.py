"""Child processes that never outlive us: the servers and services of a local stack run in these."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

# Processes claim blocks of so many ports; these blocks are for servers that may have any, 15,000 to 31,999.
_BLOCK: Final = 50
_BLOCKS: Final = range(300, 640)


class ProcessError(RuntimeError):
    """A child process could not do what it was started for; the message carries the end of its log."""


class Startable(ABC):
    """What is started and then stopped; `async with` does both."""

    @abstractmethod
    async def start(self) -> None:
        """Start, and return when it serves."""

    @abstractmethod
    async def stop(self) -> None:
        """End in order."""

    async def __aenter__(self) -> Self:
        """Start; what was started is stopped if that fails."""
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()


def free_port() -> int:
    """Find a TCP port of 127.0.0.1 that nothing listens on, for a server that may restart on it.

    It lies below the kernel's ephemeral range (32768 up, ip_local_port_range in ip(7)): while a server restarts no
    outgoing connection can be given its port. Nor does another process get it from here while this one lives, or this
    one again before it has had all others.
    """
    return _ports().any()


def claimed_port(wanted: int) -> int:
    """This port of 127.0.0.1 while nothing listens on it, and a free one else.

    No other process gets it from here as long as this one lives: a server takes seconds until it listens.
    """
    return wanted if _ports().take(wanted) else free_port()


class _Ports:
    """The ports that one process gives out. It claims them by blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._order = random.sample(_BLOCKS, k=len(_BLOCKS))
        self._ours = set[int]()
        self._given = set[int]()

    def any(self) -> int:
        with self._lock:
            for _ in range(2):
                for block in filter(self._claim, self._order):
                    for port in range(block * _BLOCK, (block + 1) * _BLOCK):
                        if self._take(port):
                            return port
                self._given.clear()
        raise ProcessError("no port of 127.0.0.1 is free: other processes have claimed them, or listen there")

    def take(self, port: int) -> bool:
        """Whether a port is this process's from now on."""
        with self._lock:
            return self._claim(port // _BLOCK) and self._take(port)

    def _take(self, port: int) -> bool:
        if port in self._given or not _is_free(port):
            return False
        self._given.add(port)
        return True

    def _claim(self, block: int) -> bool:
        """By a name among Unix sockets, which needs no file (abstract, see unix(7)); the kernel ends it with us."""
        if block in self._ours:
            return True
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0ccxt-fleet-ports-{block}")
        except OSError:
            claim.close()
            return False
        claim.detach()
        self._ours.add(block)
        return True


_OF_PROCESS: Final = dict[int, _Ports]()


def _ports() -> _Ports:
    return _OF_PROCESS.setdefault(os.getpid(), _Ports())  # a fork has its own


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


class Process:
    """A child in a session of its own, so that Ctrl-C reaches us alone and we stop it in our order.

    The kernel kills it when the thread that started it ends (PR_SET_PDEATHSIG in prctl(2)), so nothing is left even
    if we are killed. Start it from the main thread, or from one that lives as long as the child shall.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.log = log
        self._argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        self._env = dict(env)
        self._cwd = cwd
        self._stdin = stdin
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; also that of its group. Raises ProcessError before the first start."""
        if self._child is None:
            raise ProcessError(f"{self._argv[4]} was never started")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the child is there, frozen or not."""
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """As subprocess gives it: negative for a signal, None while it runs or before the first start."""
        return None if self._child is None else self._child.poll()

    def start(self) -> None:
        """Start the child, again if it has ended. Output is appended to the log."""
        if self.running:
            return
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._argv,
                stdin=self._stdin,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child alone, not to its group."""
        if self.running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL the child and all that it started, and wait for its end."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()

    def freeze(self) -> None:
        """Stop the whole group where it stands (SIGSTOP): connections stay open and nothing answers."""
        if self.running:
            os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen group go on."""
        if self.running:
            os.killpg(self.pid, signal.SIGCONT)

    async def stop(self, *, grace_s: float) -> None:
        """End the child: SIGTERM, then SIGKILL for what is left after `grace_s` seconds."""
        self.thaw()
        self.send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await self.wait(timeout_s=grace_s)
        self.kill()

    async def wait(self, *, timeout_s: float | None = None) -> int:
        """Wait until the child ends and return its exit code; TimeoutError after `timeout_s` seconds."""
        async with asyncio.timeout(timeout_s):
            while (code := self.exit_code) is None and self.running:
                await asyncio.sleep(0.02)
        return 0 if code is None else code

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the log."""
        if not self.log.exists():
            return "(no output)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) or "(no output)"
