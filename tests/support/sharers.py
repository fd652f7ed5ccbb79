"""Requests that share answers in a real Redis: dispatchers, and the worker that keeps what they asked for."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from msgspec import msgpack
from msgspec.structs import replace

from dispatcher.held import Held
from dispatcher.sharing import Sharing
from dispatcher.verdicts import Given, Leads, Verdict
from schemas import sharing
from schemas.config import LaneConfig
from schemas.messages import JSON, MSGPACK, Attempt, Outcome, Request, Try
from schemas.runtime import store
from schemas.runtime.clock import clock_s
from schemas.runtime.results import now_ms
from schemas.runtime.tasks import end_tasks
from tests.support.fleet import wait_until
from workers.keeping import Ending, Keeping

TICKER = Request("fetch_ticker", {"symbol": "BTC/USDT"}, max_age_ms=60_000)
LANE = LaneConfig(exchange="okx")
MOST_BYTES = 8 * 2**20


class Message:
    """A delivery as far as it matters here."""

    def __init__(self) -> None:
        self.body = b"x" * 100
        self.released = False

    def release(self) -> None:
        """Frees its slot."""
        self.released = True


class Dispatcher:
    """The part of a dispatcher that shares answers, with what it needs to be asked."""

    def __init__(self, client: Any, held: Held | None = None) -> None:
        self.turns_ms: dict[str, float] = {}  # by caller, how long one more would wait for its turn
        self.sharing = Sharing(client, self._turn_ms, held)
        self.runs = asyncio.create_task(self.sharing.run())
        self.asked: list[asyncio.Task[Verdict]] = []
        self.messages: list[Message] = []

    def _turn_ms(self, attempt: Attempt) -> float:
        return now_ms() + self.turns_ms.get(attempt.reply_to, 0.0)

    def ask(
        self,
        name: str = "",
        request: Request = TICKER,
        *,
        max_age_ms: int | Literal["bar"] | None = None,
        within_ms: int = 60_000,
        lanes: Sequence[LaneConfig] | dict[str, LaneConfig] = (LANE,),
        copy: bool = False,
        caller: str = "",
        content_type: Literal["application/json", "application/msgpack"] = JSON,
    ) -> asyncio.Task[Verdict]:
        """A request comes."""
        number = len(self.asked)
        fields = {**{field: getattr(request, field) for field in request.__struct_fields__}}
        fields |= {"id": name or f"{id(self)}-{number}", "deadline_ms": now_ms() + within_ms}
        if max_age_ms is not None:
            fields["max_age_ms"] = max_age_ms
        way: dict[str, Any] = {"reply_to": caller, "content_type": content_type, "copy": copy}
        attempt = Attempt(Request(**fields), "", 0, now_ms(), **way)
        message: Any = Message()
        self.messages.append(message)
        named = lanes if isinstance(lanes, dict) else {lane.exchange: lane for lane in lanes}
        sources = {name: sharing.source(lane, attempt.request) for name, lane in named.items()}
        self.asked.append(asyncio.create_task(self.sharing.find(attempt, message, sources)))
        return self.asked[-1]

    async def leads(self, *of: Any, **how: Any) -> str:
        """A request comes, and leads."""
        verdict = await self.ask(*of, **how)
        assert isinstance(verdict, Leads), verdict
        return verdict.share

    async def held(self, count: int) -> None:
        """Returns when so many wait, and each has given its slot back."""
        await wait_until(lambda: self.sharing.held.count == count, f"{count} wait")
        waiting = [message for message, task in zip(self.messages, self.asked, strict=True) if not task.done()]
        await wait_until(lambda: all(message.released for message in waiting), "they hold no slot")


@asynccontextmanager
async def dispatcher(url: str, timeout_s: float = 2.0, held: Held | None = None) -> AsyncGenerator[Dispatcher, None]:
    """One that ends with no request left in it."""
    client = store.connect(url, timeout_s=timeout_s)
    one = Dispatcher(client, held)
    try:
        yield one
    finally:
        one.sharing.close()
        await asyncio.wait_for(asyncio.gather(*one.asked), 10)
        assert one.sharing.held.count == one.sharing.held.size_bytes == 0
        await one.sharing.end()
        await end_tasks([one.runs])
        await client.aclose()


@asynccontextmanager
async def keeper(url: str) -> AsyncGenerator[Keeping, None]:
    """What a worker keeps answers with."""
    client = store.connect(url, timeout_s=2.0)
    made = Keeping(client, MOST_BYTES)
    yield made
    await made.close()
    await client.aclose()


def ended(share: str, data: Any, request: Request = TICKER, *, lane: LaneConfig = LANE, **how: Any) -> Ending:
    """How an attempt that asked for others ends: now, or `there_s`."""
    attempt = Attempt(replace(request, deadline_ms=now_ms() + 60_000), lane.exchange, 1, now_ms(), share=share)
    code = how.get("code")
    item = Try(lane.exchange, Outcome.REJECTED if code else Outcome.OK, code, how.get("why", ""))
    sent_s = how.get("sent_s", clock_s() - 0.01)
    there_s = how.get("there_s", clock_s())
    refused = how.get("refused", False)
    return Ending(attempt, lane, item, data, sent_s, there_s, how.get("size_bytes", 100), refused)


async def given(task: asyncio.Task[Verdict]) -> Given:
    """The answer that it is given."""
    async with asyncio.timeout(10):
        verdict = await task
    assert isinstance(verdict, Given), verdict
    return verdict


async def data(verdict: Given) -> Any:
    """What is in it."""
    return msgpack.decode(await verdict.data(MSGPACK))
