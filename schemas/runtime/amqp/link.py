"""One AMQP connection that comes back by itself; all that a program needs to stay connected to RabbitMQ.

It is built on aio-pika's plain connection, not on its robust one, and rebuilds a lost connection as a whole: connect,
then set up (declare, open channels, consume). So nothing is restored half-way, a queue that RabbitMQ lost is declared
again, and a queue declared with other arguments is an error that says so, not a connection that flaps forever.
"""

import asyncio
import itertools
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import aiormq
from aio_pika.exceptions import ChannelPreconditionFailed
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from ...config import BrokerConfig
from ...errors import BrokerLost, ConfigError, FleetError, TopologyError
from ...urls import place
from .. import permanent
from ..tasks import done_within, end_tasks, lost
from . import refusals
from .channels import Channels
from .connection import Connection

log = logging.getLogger(__name__)

# After RabbitMQ refused a reconnect it is tried again after so long.
REFUSED_AGAIN_S: Final = 5.0


class Link:
    """One connection, and the channels that it has at the moment.

    Args:
        config: where RabbitMQ is, and how long to wait for it.
        name: shown in RabbitMQ's list of connections, with the process's id.
        set_up: called on each new connection, with its channels, before it counts as up. Where it raises, the
            connection is given up and made again.
        confirms: see `Channels`.

    Attributes:
        channels: of the connection at the moment, None while there is none.
        connects: how often it was made.
        trouble: why there is no connection, as the last try found; empty while there is one.
    """

    def __init__(
        self, config: BrokerConfig, name: str, set_up: Callable[[Channels], Awaitable[None]], *, confirms: bool
    ) -> None:
        self._config = config
        self._name = name
        self._set_up = set_up
        self._confirms = confirms
        # In a random order: otherwise all processes would sit on the first node, and all move to the next when it dies.
        self._urls = itertools.cycle(random.sample(config.urls, len(config.urls)))
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.channels: Channels | None = None
        self.connects = 0
        self.trouble = ""
        self.up = self._up.is_set

    async def start(self) -> None:
        """Connects for the first time and stays connected from then on.

        Raises:
            ConfigError: RabbitMQ does not let us in, and no retry would change that (see `permanent`).
            TopologyError: a queue exists with other arguments.
            BrokerLost: RabbitMQ did not answer within `patience_s`.
        """
        async for attempt in self._retrying(stop_after_s=self._config.patience_s):
            with attempt:
                await self._open_one()
        self._task = asyncio.create_task(self._stay_up(), name=f"link {self._name}")

    async def close(self) -> None:
        """Closes the connection; nothing may be in flight any more."""
        try:
            if self._task is not None:
                await end_tasks([self._task])
        finally:
            await self._drop()
            if self._ending:
                await asyncio.wait(self._ending)

    async def lasts(self) -> None:
        """Never returns; raises what `start` raises if a lost connection did not come back for `give_up_s`."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def wait_up(self, timeout_s: float) -> None:
        """Waits for the connection where it is away.

        Raises:
            BrokerLost: it is still away after the time-out.
        """
        if self._up.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError as error:
            raise BrokerLost("no connection to RabbitMQ") from error

    def lose(self) -> None:
        """Gives the connection up: it is closed and made again."""
        self._up.clear()
        self._lost.set()

    def aside(self) -> AbstractAsyncContextManager[aiormq.Channel]:
        """A channel for a few commands apart from all else; see `Channels.aside`.

        Raises:
            BrokerLost: there is no connection.
        """
        if self.channels is None:
            raise BrokerLost("no connection to RabbitMQ")
        return self.channels.aside()

    def _retrying(self, stop_after_s: float) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(BrokerLost),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            before_sleep=self._log_retry,
            stop=stop_after_delay(stop_after_s),
            reraise=True,
        )

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "connect_failed", extra={"connection": self._name, "try": state.attempt_number, "error": str(error)}
        )

    async def _stay_up(self) -> None:
        while True:
            await self._lost.wait()
            give_up_s = time.monotonic() + self._config.give_up_s
            await self._drop()
            while not self._up.is_set():
                try:
                    async for attempt in self._retrying(stop_after_s=max(give_up_s - time.monotonic(), 0.001)):
                        with attempt:
                            await self._open_one()
                except FleetError:
                    if time.monotonic() >= give_up_s:
                        raise
                    # A queue or a permission that changed while we ran: only a person can repair it, but may do so.
                    log.exception("reconnect_refused", extra={"connection": self._name})
                    await asyncio.sleep(REFUSED_AGAIN_S)

    async def _open_one(self) -> None:
        """Connects to the next node, or to the one after it where that refuses us; raises what the last one raised."""
        for left in reversed(range(len(self._config.urls))):
            try:
                return await self._open()
            except FleetError as error:
                self.trouble = str(error)
                if not isinstance(error, ConfigError):
                    raise
                if not left:
                    raise
                log.warning("node_refused", extra={"connection": self._name, "error": str(error)})
        return None

    async def _open(self) -> None:
        url = next(self._urls)
        self._lost.clear()
        try:
            await done_within(self._config.timeout_s * 3, self._connect(url))
        except ChannelPreconditionFailed as error:
            await self._drop()
            raise TopologyError(
                f"RabbitMQ at {place(url)} holds a queue of ours with other arguments: {error}"
            ) from error
        except (Exception, asyncio.CancelledError) as error:
            await self._drop()
            if not lost(error):
                raise
            if why := await permanent.why_cut(error, url, self._config.timeout_s, refusals.why):
                raise ConfigError(f"no connection to RabbitMQ at {place(url)}: {why}") from error
            raise BrokerLost(f"no connection to RabbitMQ at {place(url)}: {permanent.words(error)}") from error
        self.connects += 1
        self.trouble = ""
        self._up.set()
        log.info("connected", extra={"connection": self._name, "broker": place(url), "count": self.connects})

    async def _connect(self, url: str) -> None:
        timeout_s = self._config.timeout_s
        connection = Connection(url, heartbeat_s=self._config.heartbeat_s, name=f"{self._name} ({os.getpid()})")
        channels = Channels(connection, timeout_s, confirms=self._confirms, on_loss=self.lose)
        try:
            await connection.connect(timeout_s)
        except BaseException:
            await self._end(channels)
            raise
        self.channels = channels
        await self._set_up(channels)

    async def _drop(self) -> None:
        self._up.clear()
        channels, self.channels = self.channels, None
        if channels is not None:
            await self._end(channels)

    async def _end(self, channels: Channels) -> None:
        """Closes them; whoever is cancelled meanwhile leaves no connection open."""
        self._ending.add(ending := asyncio.create_task(channels.end()))
        ending.add_done_callback(self._ending.discard)
        await asyncio.shield(ending)
