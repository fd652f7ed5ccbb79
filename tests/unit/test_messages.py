"""Messages survive both encodings, and what can't be read is an error of one kind."""

import math

import msgspec
import pytest
from msgspec.structs import replace

from schemas.encodings import decode_request, is_json
from schemas.messages import (
    JSON,
    MSGPACK,
    TRIES_KEPT,
    Attempt,
    DeadLetter,
    ErrorCode,
    Outcome,
    Request,
    Result,
    Try,
    decode_attempt,
    decode_letter,
    encode,
)
from schemas.reports import BucketReport, LaneReport, Report, decode_report
from schemas.runtime.results import failure, results_key
from schemas.times import LATEST_MS

REQUEST = Request(
    "fetch_ohlcv",
    {"symbol": "BTC/USDT", "since": 2**53, "limit": 5, "params": {"price": "mark", "x": [None, True, 0.1]}},
    id="é💥",
    exchanges=["okx", "kraken.eu"],
    strategy="failover",
    deadline_ms=1_800_000_000_000,
    priority="bulk",
)
FAILED = Try("okx", Outcome.FAILED, ErrorCode.EXCHANGE_TIMEOUT, "late", 1.5, 10_000.0)
THROTTLED = Try("okx", Outcome.THROTTLED, ErrorCode.NO_BUDGET, "full", retry_at_ms=5)
ATTEMPT = Attempt(REQUEST, "okx", 1, 7, "reply", "c", MSGPACK, [FAILED], 2, 100.0)


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
@pytest.mark.parametrize("request_", [REQUEST, Request("fetch_time")])
def test_a_request_comes_back_as_it_was(request_: Request, content_type: str) -> None:
    assert decode_request(content_type, encode(request_, content_type)) == request_


def test_attempts_and_reports_come_back_as_they_were() -> None:
    assert decode_attempt(encode(ATTEMPT)) == ATTEMPT
    report = Report(
        "w",
        5,
        [
            LaneReport(
                "okx", failed={ErrorCode.INTERNAL: 2}, buckets={"x": BucketReport(used=0.5)}, methods=["fetch_time"]
            )
        ],
        True,
    )
    assert decode_report(encode(report)) == report


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
def test_a_result_says_the_same_in_both_encodings(content_type: str) -> None:
    result = Result("1", True, "fetch_ticker", "okx", "okx", {"last": 0.1, "info": [None, 2**63]}, None, [FAILED], 1, 2)
    decode = msgspec.json.decode if content_type == JSON else msgspec.msgpack.decode
    assert decode(encode(result, content_type), type=Result) == result


def test_dead_letters_keep_any_body() -> None:
    letter = DeadLetter(ErrorCode.UNREADABLE, "why", "fleet.requests", 1, bytes(range(256)))
    assert msgspec.msgpack.decode(encode(letter), type=DeadLetter) == letter


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        encode(REQUEST),
        encode(msgspec.structs.replace(ATTEMPT, request=Request("fetch_time"))),
        b"\x91" * 100_000,
        encode(ATTEMPT)[:-1],
        encode(ATTEMPT).replace(b"okx", b"\xff\xfe\xfd"),
    ],
)
def test_what_is_no_attempt_is_one_kind_of_error(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_attempt(body)
    for decode in (decode_report, decode_letter):
        with pytest.raises(msgspec.DecodeError):
            decode(body)


@pytest.mark.parametrize(
    "attempt",
    [
        replace(ATTEMPT, request=replace(REQUEST, deadline_ms=LATEST_MS + 1)),
        replace(ATTEMPT, request=replace(REQUEST, exchanges=[]), results=2),
        replace(ATTEMPT, request=replace(REQUEST, id="é" * 128)),
        replace(ATTEMPT, reply_to="x" * 256),
        replace(ATTEMPT, correlation_id="x" * 256),
        replace(ATTEMPT, number=2**64 - 1),
        replace(ATTEMPT, timeout_ms=math.nan),
        replace(ATTEMPT, tries=[replace(FAILED, waited_ms=math.inf)]),
        replace(ATTEMPT, content_type="text/plain"),
    ],
)
def test_an_attempt_that_could_not_go_on_is_none(attempt: Attempt) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_attempt(encode(attempt))


@pytest.mark.parametrize("lane", [LaneReport("okx", slowness=math.nan), LaneReport("okx", ok=2**64 - 1)])
def test_a_report_holds_numbers_that_can_be_reckoned_with(lane: LaneReport) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_report(encode(Report("w", 5, [lane])))


def test_only_what_was_sent_costs_an_attempt() -> None:
    failed = ATTEMPT.handed_back(FAILED)
    assert (failed.number, failed.throttled, failed.tries) == (1, 2, [FAILED, FAILED])
    throttled = ATTEMPT.handed_back(THROTTLED)
    assert (throttled.number, throttled.throttled, throttled.tries) == (0, 3, [FAILED, THROTTLED])
    again = throttled.handed_back(msgspec.structs.replace(THROTTLED, retry_at_ms=9))
    assert [item.retry_at_ms for item in again.tries] == [None, 9]
    elsewhere = again.handed_back(msgspec.structs.replace(THROTTLED, lane="htx"))
    assert [item.lane for item in elsewhere.tries] == ["okx", "okx", "htx"]


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (JSON, b"\x81", True),
        ("text/json", b"", True),
        (MSGPACK, b"{}", False),
        ("", b"  {", True),
        ("", b"[", True),
        ("", b'"', True),
        ("", b"\x81", False),
        ("", b"", True),
        ("", b"\x80", False),
        ("", b"\x80\x05", True),
        ("", b"\x1f\x8b", True),
        ("", b"\xef\xbb\xbf{", True),
        ("text/plain", b"{", True),
    ],
)
def test_what_counts_as_json(content_type: str, body: bytes, expected: bool) -> None:
    assert is_json(content_type, body) is expected


def test_a_failure_carries_all_attempts() -> None:
    result = failure(ATTEMPT, ErrorCode.ATTEMPTS_EXHAUSTED, "enough", THROTTLED)
    assert (result.ok, result.id, result.method, result.received_ms) == (False, "é💥", "fetch_ohlcv", 7)
    assert result.attempts == [FAILED, THROTTLED]
    assert result.error is not None
    assert result.error.code == ErrorCode.ATTEMPTS_EXHAUSTED
    assert result.completed_ms > 1_700_000_000_000


def test_a_request_that_waits_for_days_does_not_grow() -> None:
    attempt = replace(ATTEMPT, lane="okx", tries=[Try("htx", Outcome.FAILED, ErrorCode.BAD_SYMBOL)])
    for number in range(300):
        attempt = attempt.handed_back(Try("okx", Outcome.FAILED, ErrorCode.MAINTENANCE, str(number)))
    assert len(attempt.tries) == TRIES_KEPT
    assert attempt.tries[0].lane == "htx"  # the last word of each lane stays
    assert [int(item.message) for item in attempt.tries[1:]] == list(range(201, 300))


@pytest.mark.parametrize(
    ("method", "exchange", "ok", "key"),
    [
        ("fetch_ticker", "okx", True, "okx.fetch_ticker.ok"),
        ("fetch_ticker", None, False, "none.fetch_ticker.error"),
        ("create_order", None, False, "none.invalid.error"),
        ("", None, False, "none.invalid.error"),
        ("x" * 128, None, False, "none.invalid.error"),
        ("fetch_#.*", None, False, "none.invalid.error"),
    ],
)
def test_a_result_s_key_names_exchange_method_and_end(method: str, exchange: str | None, ok: bool, key: str) -> None:
    assert results_key(Result("1", ok, method, exchange)) == key
