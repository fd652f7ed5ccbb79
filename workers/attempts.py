"""Runs one attempt on its lane: what comes back is how it ended, and the data if it went well."""

import asyncio
import logging
from typing import Any, Final

from msgspec import Struct

from schemas.config import WorkerConfig
from schemas.messages import Attempt, Outcome, Try
from schemas.runtime import results

from .exchange.lane_exchange import Call, LaneExchange
from .exchange.verdict import judge

log = logging.getLogger(__name__)

# All that an attempt waits for ends with its time, or little later where Redis does not answer. A fault of ours that
# forgets this must not keep the request.
HUNG_AFTER_S: Final = 10.0
# The longest that a bulk attempt waits here for room: what waits in its lane's queue costs nobody anything, while what
# is handed back goes round.
BULK_WAIT_S: Final = 30.0
# ccxt's words for an exchange that answers but does not work.
_CLOSED: Final = ("maintenance", "shutdown")


class Ended(Struct, frozen=True):
    """How an attempt ended.

    Args:
        item: as the result will tell it.
        data: what the ccxt method returned, None unless the outcome is ok.
        http_calls: how many HTTP calls it sent.
        budget_ms: in which time the budget that they took comes back (`Call.budget_s`).
        in_maintenance: the exchange was asked for its status, and said so.
        of_connection: an error speaks of the way to the exchange, whatever was asked (`Verdict.of_connection`).
    """

    item: Try
    data: Any
    http_calls: int
    budget_ms: float
    in_maintenance: bool = False
    of_connection: bool = False


async def run(lane: LaneExchange, attempt: Attempt, config: WorkerConfig) -> Ended:
    """Runs an attempt within the budget and until its deadline; every error becomes an outcome.

    Args:
        lane: where it was sent.
        attempt: the attempt.
        config: how long a live one may wait for budget here.

    Raises:
        asyncio.CancelledError: the worker was told to stop at once.
    """
    request = attempt.request
    max_wait_s = BULK_WAIT_S if request.bulk else config.max_wait_s
    if attempt.max_wait_ms is not None:
        max_wait_s = min(max_wait_s, attempt.max_wait_ms / 1000)
    timeout_s = (attempt.deadline_ms - results.now_ms()) / 1000
    if attempt.timeout_ms is not None:
        timeout_s = min(timeout_s, attempt.timeout_ms / 1000)
    call = Call(
        lane.exchange,
        max_wait_s=max_wait_s,
        timeout_s=timeout_s,
        bulk=request.bulk,
        account=request.account,
    )
    hung = asyncio.timeout(max(timeout_s, 0.0) + HUNG_AFTER_S)
    try:
        async with hung:
            data = await lane.call(request.method, request.args, call)
        in_maintenance = request.method == "fetch_status" and data.get("status") in _CLOSED
    except Exception as error:  # every class has its verdict, those nobody thought of too
        if hung.expired():
            log.exception("attempt_hung", extra={"request_id": request.id, "lane": lane.name})
        verdict = judge(error, call, lane.redactor.hide)
        retry_at_ms = results.now_ms() + int(verdict.pause_s * 1000) if verdict.pause_s else None
        item = Try(lane.name, verdict.outcome, verdict.code, verdict.message, retry_at_ms=retry_at_ms, **_times(call))
        return Ended(item, None, call.http_calls, call.budget_s * 1000, of_connection=verdict.of_connection)
    item = Try(lane.name, Outcome.OK, **_times(call))
    return Ended(item, data, call.http_calls, call.budget_s * 1000, in_maintenance)


def _times(call: Call) -> dict[str, Any]:
    return {"waited_ms": round(call.waited_s * 1000, 3), "exchange_ms": round(call.exchange_s * 1000, 3)}
