"""The fleet's own messages are distinguished from requests by their fields."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.encodings import decode_request
from schemas.kinds import kind
from schemas.messages import (
    JSON,
    MSGPACK,
    Attempt,
    DeadLetter,
    ErrorCode,
    Failure,
    Outcome,
    Request,
    Result,
    Try,
    encode,
)
from schemas.reports import LaneReport, Report
from schemas.status import ConfigurationStatus, DispatcherStatus, ProcessStatus, WorkerStatus

REQUEST = Request("fetch_ticker", {"symbol": "BTC/USDT"}, id="one", deadline_ms=4_102_444_800_000)
FAILED = Try("okx", Outcome.FAILED, ErrorCode.EXCHANGE_ERROR)
PROCESS = ProcessStatus("workers", "host-1", 1, "", ConfigurationStatus("abc", 1), connected=True, connects=1)
OWN: dict[str, list[msgspec.Struct]] = {
    "a result": [
        Result("one", ok=True, data={"last": 1.0}, attempts=[FAILED]),
        Result("", ok=False, error=Failure(ErrorCode.UNREADABLE, "no")),
    ],
    "an attempt": [Attempt(REQUEST, "", 0, 1), Attempt(REQUEST, "okx", 2, 1, reply_to="mine", tries=[FAILED])],
    "a report": [Report("host-1", 1, []), Report("host-1", 1, [LaneReport("okx", ok=1)], leaving=True)],
    "a dead letter": [DeadLetter(ErrorCode.UNREADABLE, "no", "fleet.requests", 1, b"\xc1")],
    "a status": [DispatcherStatus(PROCESS, []), WorkerStatus(PROCESS, "4.5.90", redis=True, lanes=[])],
}


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
@pytest.mark.parametrize("name", OWN)
def test_every_message_of_the_fleet_is_known_and_none_passes_for_a_request(name: str, content_type: str) -> None:
    for message in OWN[name]:
        body = encode(message, content_type)
        assert kind(content_type, body) == kind("", body) == name
        with pytest.raises(msgspec.ValidationError):
            decode_request(content_type, body)


def test_a_later_version_s_fields_do_not_hide_it() -> None:
    later = msgspec.json.decode(encode(OWN["a result"][0], JSON)) | {"of_a_later_version": 1}
    assert kind(JSON, msgspec.json.encode(later)) == "a result"


REQUESTS = st.fixed_dictionaries(
    {"method": st.text(min_size=1, max_size=20)},
    optional={
        "args": st.dictionaries(st.text(max_size=5), st.integers(0, 9)),
        "id": st.text(max_size=20),
        "exchanges": st.lists(st.text(min_size=1, max_size=5), max_size=3),
        "deadline_ms": st.integers(0, 2**40),
        "hedge_ms": st.integers(1, 1000),
        "max_age_ms": st.integers(0, 1000) | st.just("bar"),
    },
)


@given(REQUESTS, st.sampled_from([JSON, MSGPACK]))
def test_no_request_is_taken_for_one(request: dict[str, Any], content_type: str) -> None:
    body = msgspec.json.encode(request) if content_type == JSON else msgspec.msgpack.encode(request)
    assert decode_request(content_type, body).method == request["method"]
    assert kind(content_type, body) == ""


@pytest.mark.parametrize(
    "body", [b"", b"noise", b"[]", b'{"id":"x","ok":tru', b'{"ok":true}', b"\x91" * 50_000, b'{"id":' * 20_000, b"\xc1"]
)
def test_anything_else_is_none_of_them(body: bytes) -> None:
    assert kind("", body) == kind(JSON, body) == kind(MSGPACK, body) == ""
