"""Times that exchanges tell, in every form that is known; and whatever they write, it is never out of its bounds."""

from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.exchange import told
from workers.exchange.signals import limit_signal
from workers.exchange.told import FURTHEST_S, in_header, in_text
from workers.limits.answers import BOUNDS_S
from workers.limits.tables import shipped

NOW_S = 1_800_000_000.0
# 0: a time that is past, or now. None: no time at all.
HEADERS: dict[str, float | None] = {
    "12": 12,
    " 12 ": 12,
    '"12"': 12,
    "1.5": 1.5,
    "0": 0,
    "-3": 0,
    "12, 30": 30,
    "2592000": FURTHEST_S,
    "99999999": None,
    "99999999999": None,
    "1e300": None,
    "inf": None,
    "nan": None,
    "": None,
    "soon": None,
    "1800000030": 30,
    "1800000030.5": 30.5,
    "1800000030000": 30,
    "1800000030000000": 30,
    "1800000030000000000": 30,
    "1799999970": 0,
    "1000000000000": 0,
    "1900000000": None,
    "30s": 30,
    "30 seconds": 30,
    "1500ms": 1.5,
    "5m": 300,
    "1m30s": 90,
    "1 minute and 30 seconds": 90,
    "2h": 7200,
    "1 day": 86400,
    "PT30S": 30,
    "PT1M30.5S": 90.5,
    "P1DT2H": 93600,
    "pt5m": 300,
    "PT": None,
    "P1M": None,
    "00:05:00": 300,
    "1:00:00": 3600,
    "05:00": None,
    "1800000030s": 30,
    "1800000030000ms": 30,
    "1799999970 s": 0,
    "1900000000s": None,
    "1.80000003e9": 30,
    "15 Jan 2027 08:00:30 GMT": 30,
    "Fri, 15-Jan-2027 08:00:30 GMT": 30,
    "January 15, 2027 08:00:30 UTC": 30,
    formatdate(NOW_S + 30, usegmt=True): 30,
    formatdate(NOW_S - 30, usegmt=True): 0,
    formatdate(NOW_S + 40 * 86400, usegmt=True): None,
    "Thu, 01 Jan 1970 00:00:00 GMT": 0,
    "2027-01-15T08:00:30Z": 30,
    "2027-01-15T08:00:30.000Z": 30,
    "2027-01-15T09:00:30+01:00": 30,
    "2027-01-15 08:00:30": 30,
    "2027-01-15 08:00:30 UTC": 30,
    "2027-01-15 16:00:30 UTC+8": 30,
    "2027-01-15 16:00:30(UTC+08:00)": 30,
    "2027-01-15 03:00:30 GMT-5": 30,
    "2027-01-15 13:30:30+0530": 30,
    "2027-01-15 13:30:30+99:99": None,
    "2027-01-15 08:00:30 +0000 UTC": 30,
    "2027-01-15 13:30:30.5 +0530 UTC": 30.5,
    "2027/01/15 08:00:30": 30,
    "2027-01-16": 57600,
    "15/01/2027 08:00:30": None,
    "ven., 15 janv. 2027 08:00:30 GMT": None,
    "2027-13-45T99:00:00Z": None,
}
TEXTS: dict[str, float | None] = {
    "Way too much request weight used; IP banned until 1800000600000. Please use the websocket": 600,
    "IP banned until 1799999600000.": 0,
    "IP banned until 1": None,
    '{"error":["EService: Throttled: 1800000009"]}': 9,
    '{"error":["EService:Throttled:1800000009"]}': 9,
    "is currently in the disabled period and will be unblocked after 1800000300000": 300,
    "within 480000 ms for this api, please verify and fix it ,can retry after time: 1800000155000": 155,
    "Rate limit exceeded. Try again in 30 seconds.": 30,
    "Too many requests, please retry in 1.5s": 1.5,
    "please wait 5 minutes": 300,
    "Please wait for another 10 min": 600,
    "wait for an hour": 3600,
    "banned until 15 Jan 2027 08:05:00 GMT": 300,
    "blocked until 15 January 2027, 08:05 UTC": 300,
    "try again after Jan. 15, 2027 08:05:00": 300,
    "wait 100 ms; ban 5 min": 300,
    "retry in 00:05:00": 300,
    "try again at 09:05:00": None,
    "wait 1800000300s": 300,
    '{"retryAfter":"PT5M"}': 300,
    '{"retry_after": 1.8000003e9}': 300,
    '{"retry_after": 1.5e1}': 15,
    "urban 5 min walk": None,
    "try again in a minute": 60,
    "Your address is blocked for 1 minute and 30 seconds": 90,
    "retry after 2027-01-15T08:00:30Z": 30,
    "Retry after Fri, 15 Jan 2027 08:00:30 GMT": 30,
    '{"error":"slow down","retry_after":30}': 30,
    '{"retryAfter": "1.5"}': 1.5,
    '{"retry_after_ms":1500}': 1.5,
    '{"retryAfterMs":1500}': 1.5,
    '{"retry_after_seconds":7}': 7,
    '{"retry_after":1800000030}': 30,
    '{"ban_until":1800000600}': 600,
    '{"retry_after":0}': 0,
    "Retry after 30 seconds. Your ban is lifted in 2 hours": 7200,
    "wait": None,
    "please try again later": None,
    "10 requests per 60 seconds": None,
    "retry after 5 attempts": None,
    "The limit is 20 calls in 2 s; we wait": None,
    "again against 5 minutes of patience": None,
    "banned until the end of time": None,
    "Try again in 3 to 5 minutes": 300,
    "wait 5-10 min": 600,
    "blocked 5 minutes ago": None,
    "banned 2 hours ago, retry in 3 s": 3,
    "available 30 m, locked 12.5 S, available balance 1800000600": None,
    '{"available":1800000600,"locked":"1800000600"}': None,
    "Your IP has been banned. Unban time: 1800000600000": 600,
    '{"unbanTime":1800000600000}': 600,
    "your address will be released at 1800000600": 600,
    "please unblock after 10 min": 600,
    "Please retry your request in 30 seconds": 30,
    "retry request after 10 s": 10,
    "try again in approximately 30 seconds": 30,
    "Please wait at least 30 seconds": 30,
    "wait for up to 5 minutes": 300,
    "banned until 2027/01/15 08:10:00": 600,
    "retry at least 3 times": None,
    "released 5 minutes ago": None,
    "available again at 1800000030": 30,
    "available in 30 s": 30,
    # A number that is cut, or has a unit of another language, says less than it means.
    "wait 1,5 s": None,
    "retry in 1 000 s": None,
    "retry in 30 \u043c\u0438\u043d\u0443\u0442": None,
    "try again in 30\u5206": None,
    "wait 10.": 10,
    "wait 10, then go on": 10,
    "order 1800000600 at 30000.5: retry 123456": None,
    "banned until 2027-01-15 16:00:30 UTC+8": 30,
    "retry after -30": None,
    '{"retry_after":[30]}': None,
    '{"retry_after":null}': None,
    '{"code":"50011","msg":"Too Many Requests","ts":"1800000030000"}': None,
}


@pytest.mark.parametrize("text", HEADERS)
def test_headers(text: str) -> None:
    assert in_header(text, NOW_S) == pytest.approx(HEADERS[text])


@pytest.mark.parametrize(
    ("text", "seconds"), [("22273", 22.273), ("0", 0), ("1800000030000", 30), ("1800000030", 30), ("10000", 10)]
)
def test_headers_in_milliseconds(text: str, seconds: float) -> None:
    assert in_header(text, NOW_S, milliseconds=True) == pytest.approx(seconds)


@pytest.mark.parametrize("text", TEXTS)
def test_texts(text: str) -> None:
    assert in_text(text, NOW_S) == pytest.approx(TEXTS[text])


@pytest.mark.parametrize(
    ("date", "by"),
    [
        ("", NOW_S),
        (formatdate(NOW_S + 1, usegmt=True), NOW_S),
        # Its clock is 90 s ahead: what it means by an instant is 90 s sooner.
        (formatdate(NOW_S + 90, usegmt=True), NOW_S + 90),
        (formatdate(NOW_S - 90, usegmt=True), NOW_S - 90),
        ("Thu, 01 Jan 1970 00:00:00 GMT", NOW_S),
        ("yesterday", NOW_S),
    ],
)
def test_instants_are_meant_by_the_exchange_s_own_clock(date: str, by: float) -> None:
    assert told.clock_s({"date": date}, NOW_S) == by


# What a header or a text may hold: anything, and near misses of what is known.
_DIGITS = st.from_regex(r"-?[0-9]{1,22}(\.[0-9]{1,12})?", fullmatch=True)
_DATES = st.floats(-1e11, 1e11).map(lambda at_s: formatdate(at_s % 253402300799, usegmt=True))
_VALUES = st.one_of(
    st.text(max_size=40),
    _DIGITS,
    _DATES,
    st.sampled_from([*HEADERS]),
    st.sampled_from(["1800000000", "1e3", "9" * 30, "\u0661\u0662", "0x10", "1,2", "--", "NaN", "-inf", "1d" * 5]),
)
_WORDS = st.sampled_from(
    [*TEXTS, "retry after ", "banned until ", "wait ", '"retry_after":', "in ", " minutes", "ms", "d"]
)
_BODIES = st.lists(st.one_of(_WORDS, _VALUES), max_size=6).map("".join)


@given(_VALUES, _BODIES, st.floats(1.7e9, 1.9e9), st.booleans())
@example("99999999999", "", NOW_S, False)
@example("9" * 400, "retry after " + "9" * 400, NOW_S, True)
def test_what_is_told_is_never_below_nothing_and_never_too_far(
    value: str, body: str, now_s: float, milliseconds: bool
) -> None:
    for seconds in (in_header(value, now_s, milliseconds=milliseconds), in_text(body, now_s)):
        assert seconds is None or 0 <= seconds <= FURTHEST_S


@given(
    st.sampled_from(["binance", "okx", "kraken", "bybit", "bingx", "phemex", "gate", "deribit"]),
    st.sampled_from([200, 400, 403, 418, 429, 500, 503]),
    _VALUES,
    st.sampled_from(["Retry-After", "retry-after", "X-RateLimit-Retry-After-Spot", "gw-ratelimit-reset", "Date"]),
    _BODIES,
)
def test_a_pause_is_within_its_bounds_whatever_an_answer_says(
    exchange: str, status: int, value: str, header: str, body: str
) -> None:
    pause = limit_signal(shipped().answers(exchange), status, {header: value}, body, NOW_S, refused=True)
    assert pause is not None
    assert 1 <= pause.seconds <= pause.most_s <= BOUNDS_S["ban"][1]
    assert pause.source
    assert pause.told == (not pause.source.startswith("our backoff"))
