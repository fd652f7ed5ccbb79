"""The simulator as a child process, for tests, the demo and the benchmarks."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from deploy.processes import Process, Startable
from schemas.runtime import modules

_READY = re.compile(r"^\{\"control\".*\}$", re.MULTILINE)


class SimulatorError(RuntimeError):
    """The simulator did not start, or its control port refused what it was asked."""


class _Where(msgspec.Struct):
    control: str
    exchanges: dict[str, str]


class Simulator(Startable):
    """Starts `python -m deploy.simulator` and speaks to its control port.

    Args:
        seed: prices and faults follow from it.
        exchanges: which to serve; None for all.
        arguments: further command-line words.
        start_timeout_s: how long the start may take.
        log: the file its log goes to; None for a temporary one that `stop` removes.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        exchanges: Sequence[str] | None = None,
        arguments: Sequence[str] = (),
        start_timeout_s: float = 20,
        log: Path | None = None,
    ) -> None:
        self._words = ["--seed", str(seed), *arguments]
        if exchanges is not None:
            self._words += ["--exchanges", ",".join(exchanges)]
        self._start_timeout_s = start_timeout_s
        self._log = log
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._process: Process | None = None
        self.control = ""
        """The control port's URL."""
        self.urls: dict[str, str] = {}
        """Each exchange's URL."""

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.running else None

    async def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            SimulatorError: it did not come up in time; its log is in the message, and nothing is left running.
        """
        if self._log is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="ccxt-fleet-simulator-")
        log = self._log or Path(self._temporary.name if self._temporary else "") / "simulator.log"
        argv = modules.command("deploy.simulator", *self._words)
        self._process = Process(argv, log=log, env=os.environ, cwd=modules.CHECKOUT)
        try:
            self._process.start()
            async with asyncio.timeout(self._start_timeout_s):
                while (ready := _READY.search(self.log())) is None and self._process.running:
                    await asyncio.sleep(0.02)
        except BaseException as error:
            text = self.log()
            await self.stop()
            if isinstance(error, TimeoutError):
                raise SimulatorError(f"the simulator did not start in time; its log:\n{text}") from error
            raise
        if ready is None:
            text = self.log()
            await self.stop()
            raise SimulatorError(f"the simulator ended before it served; its log:\n{text}")
        where = msgspec.json.decode(ready[0], type=_Where)
        self.control, self.urls = where.control, where.exchanges

    async def stop(self) -> None:
        """End it, by force where it does not end by itself within five seconds."""
        if self._process is not None:
            await self._process.stop(grace_s=5)
            self._process = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def log(self) -> str:
        """What it has written to its log so far."""
        if self._process is None or not self._process.log.exists():
            return ""
        return self._process.log.read_text(encoding="utf-8", errors="replace")

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
