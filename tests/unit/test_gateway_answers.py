"""What a caller of the gateway gets in place of an answer: a status that ccxt raises an error for, and why."""

import json

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from schemas.gateway import answers
from schemas.messages import ErrorCode, Outcome, Try

NOW_MS = 1_760_000_000_000


def test_every_error_of_the_fleet_has_a_status() -> None:
    assert set(answers.STATUSES) == set(ErrorCode)
    assert 429 not in {*answers.STATUSES.values(), *answers.OWN.values()}
    assert 418 not in {*answers.STATUSES.values(), *answers.OWN.values()}
    assert not set(ErrorCode) & (set(answers.OWN) - {"too_large"})


@pytest.mark.parametrize("code", ErrorCode)
def test_what_may_succeed_later_says_when(code: ErrorCode) -> None:
    tries = [
        Try("a", Outcome.THROTTLED, ErrorCode.PAUSED, retry_at_ms=NOW_MS + 60_000),
        Try("b", Outcome.THROTTLED, ErrorCode.NO_BUDGET, retry_at_ms=NOW_MS + 2_500),
        Try("b", Outcome.THROTTLED, ErrorCode.NO_BUDGET, retry_at_ms=NOW_MS + 7_500),
    ]
    refusal = answers.of_error(code, "why", "id-1", tries, NOW_MS)
    told = json.loads(refusal.body(as_json=True))
    assert told == {"id": "id-1", "ok": False, "error": {"code": code, "message": "why"}}
    assert refusal.body(as_json=False) == f"ccxt-fleet: {code}: why\n".encode()
    for as_json in (False, True):
        headers = refusal.all_headers(as_json=as_json)
        assert (headers["X-Fleet-Error"], headers["X-Fleet-Request"]) == (code, "id-1")
        assert headers.get("Retry-After") == ("8" if refusal.status == 503 else None)


@pytest.mark.parametrize(("at_ms", "wanted"), [(None, 1), (-5_000, 1), (1, 1), (2_001, 3), (10**9, 3600)])
def test_retry_after_is_from_one_second_to_an_hour(at_ms: int | None, wanted: int) -> None:
    retry_at_ms = None if at_ms is None else NOW_MS + at_ms
    assert answers.retry_after_s([Try("a", Outcome.THROTTLED, retry_at_ms=retry_at_ms)], NOW_MS) == wanted


REFUSALS = [
    *(answers.of_error(code, 'no lane can answer it; last: "x"', "id-1", [], NOW_MS) for code in ErrorCode),
    *(answers.refused(code, "why") for code in answers.OWN),
]


# Their classes make an error of any text that programs do not try again after, whatever status it comes with.
STUBBORN = {"cex", "cryptocom", "deepcoin", "lbank"}


@pytest.mark.parametrize("name", ccxt.exchanges)
def test_ccxt_raises_an_error_of_its_own_for_each(name: str) -> None:
    """As `Exchange.fetch` of ccxt goes on when an answer is there. What may succeed later is tried again."""
    exchange = getattr(ccxt, name)()
    for refusal in {each.status: each for each in REFUSALS}.values():
        body, headers = refusal.body(as_json=False).decode(), refusal.all_headers(as_json=False)
        with pytest.raises(ccxt.BaseError) as raised:
            url = "http://127.0.0.1:8080/x/y"
            parsed = exchange.parse_json(body)
            if not exchange.handle_errors(refusal.status, "", url, "GET", headers, body, parsed, {}, None):
                exchange.handle_http_status_code(refusal.status, "", url, "GET", body)
        if refusal.status == answers.LATER and name not in STUBBORN:
            assert isinstance(raised.value, ccxt.NetworkError), refusal
            assert not isinstance(raised.value, ccxt.DDoSProtection), refusal
