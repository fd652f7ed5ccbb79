"""The simulator as a child process, for tests, the demo and the benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

import aiohttp
import msgspec

_ROOT = Path(__file__).resolve().parents[2]


class SimulatorError(RuntimeError):
    """The simulator did not start, or its control port refused what it was asked."""


class _Where(msgspec.Struct):
    control: str
    exchanges: dict[str, str]


class Simulator:
    """Starts `python -m deploy.simulator` and speaks to its control port.

    Args:
        seed: prices and faults follow from it.
        exchanges: which to serve; None for all.
        arguments: further command-line words.
        start_timeout_s: how long the start may take.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        exchanges: Sequence[str] | None = None,
        arguments: Sequence[str] = (),
        start_timeout_s: float = 20,
    ) -> None:
        self._words = ["--seed", str(seed), *arguments]
        if exchanges is not None:
            self._words += ["--exchanges", ",".join(exchanges)]
        self._start_timeout_s = start_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._log: IO[bytes] | None = None
        self.control = ""
        """The control port's URL."""
        self.urls: dict[str, str] = {}
        """Each exchange's URL."""

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> Self:
        """Start it and wait until it serves.

        Raises:
            SimulatorError: it did not come up in time; its log is in the message, and nothing is left running.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - the child writes to it until stop()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deploy.simulator", *self._words,
            cwd=_ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), self._start_timeout_s)
            where = msgspec.json.decode(line, type=_Where)
        except BaseException as error:
            log = self.log()
            await self.stop()
            if isinstance(error, (TimeoutError, msgspec.DecodeError)):
                raise SimulatorError(f"the simulator did not start; its log:\n{log}") from error
            raise
        self.control, self.urls = where.control, where.exchanges
        return self

    async def stop(self) -> None:
        """End it, by force where it does not end by itself within five seconds."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 5)
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def log(self) -> str:
        """What it has written to its log so far."""
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    async def ask(self, method: str, path: str, body: dict[str, object] | None = None) -> Any:
        """Send a request to the control port.

        Raises:
            SimulatorError: it was refused; the message says why.
        """
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.control + path, json=body) as answer,
        ):
            text = await answer.read()
            if answer.status != 200:
                raise SimulatorError(f"{method} {path}: {answer.status} {text.decode()}")
            return msgspec.json.decode(text)

    async def counters(self) -> dict[str, Any]:
        """All that was counted: `violations`, and per exchange requests, endpoints, buckets."""
        found: dict[str, Any] = await self.ask("GET", "/counters")
        return found

    async def reset(self) -> None:
        """Count from zero; windows and bans stay."""
        await self.ask("POST", "/counters/reset")

    async def fault(self, exchange: str, **faults: object) -> None:
        """Give an exchange exactly these faults (see `Faults`), in place of those it had."""
        await self.ask("PUT", f"/faults/{exchange}", faults)

    async def clear(self, exchange: str) -> None:
        """Heal an exchange and lift its bans."""
        await self.ask("DELETE", f"/faults/{exchange}")

    async def enforce_limits(self, enforced: bool) -> None:
        """Whether limits are answered by refusals; they are counted either way."""
        await self.ask("PUT", "/limits", {"enforced": enforced})

    async def set_clock(self, *, frozen: bool | None = None, advance_s: float = 0) -> None:
        """Freeze the simulator's clock or let it run, then move it forward by `advance_s` seconds."""
        change: dict[str, object] = {"advance_s": advance_s}
        if frozen is not None:
            change["frozen"] = frozen
        await self.ask("PUT", "/clock", change)
