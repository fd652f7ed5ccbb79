"""Bodies that are no requests are told what they are, and give away what they can."""

import base64
import bz2
import gzip
import json
import lzma
import pickle
import zlib
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher import nearly_json, unreadable
from dispatcher.slips import field
from schemas.messages import JSON, MSGPACK, Request

REQUEST: Final[dict[str, Any]] = {"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}, "id": "t-1"}
TEXT: Final = json.dumps(REQUEST)
BODY: Final = TEXT.encode()
PACKED: Final = msgspec.msgpack.encode(REQUEST)
# Its id comes first, so that it is still there when the end is missing.
ID_FIRST: Final = msgspec.msgpack.encode(dict(sorted(REQUEST.items(), key=lambda field: field[0] != "id")))
CBOR: Final = b"\xa1fmethod\x6cfetch_ticker"

# What each is called, and whether its id and method can be read all the same.
KINDS: Final[dict[str, tuple[bytes, str, str, bool]]] = {
    "gzip": (gzip.compress(BODY), JSON, "compressed with gzip", False),
    "zlib": (zlib.compress(BODY), "", "compressed with zlib", False),
    "zlib, fast": (zlib.compress(BODY, 1), "", "compressed with zlib", False),
    "bzip2": (bz2.compress(BODY), MSGPACK, "compressed with bzip2", False),
    "xz": (lzma.compress(BODY), JSON, "compressed with xz", False),
    "Zstandard": (b"\x28\xb5\x2f\xfd\x04", "", "compressed with Zstandard", False),
    "UTF-16 with a mark": (TEXT.encode("utf-16"), JSON, "UTF-16", True),
    "UTF-16, little end first": (TEXT.encode("utf-16-le"), "", "UTF-16", True),
    "UTF-16, big end first": (TEXT.encode("utf-16-be"), JSON, "UTF-16", True),
    "UTF-32 with a mark": (TEXT.encode("utf-32"), "", "UTF-32", True),
    "UTF-32, big end first": (TEXT.encode("utf-32-be"), JSON, "UTF-32", True),
    "JSON called MessagePack": (BODY, MSGPACK, "is JSON, but its content_type says MessagePack", True),
    "JSON with a mark called MessagePack": (b"\xef\xbb\xbf" + BODY, MSGPACK, "content_type says MessagePack", True),
    "MessagePack called JSON": (PACKED, JSON, "is MessagePack, but its content_type says JSON", True),
    "JSON in JSON": (json.dumps(TEXT).encode(), JSON, "encoded twice", True),
    "JSON in base64": (base64.b64encode(BODY), "", "base64", True),
    "JSON in base64 for URLs": (base64.urlsafe_b64encode(BODY).rstrip(b"=") + b"\n", JSON, "base64", True),
    "MessagePack in base64": (base64.b64encode(PACKED), MSGPACK, "base64", True),
    "a Python dict": (repr(REQUEST).encode(), JSON, "Python dict", True),
    "a pickle": (pickle.dumps(REQUEST), "", "pickle", False),
    "CBOR": (CBOR, "application/cbor", "CBOR", False),
    "a list in JSON": (b"[" + BODY + b"]", JSON, "list", False),
    "a list in MessagePack": (msgspec.msgpack.encode(["fetch_ticker", {}]), "", "list", False),
    "NaN": (BODY[:-1] + b', "hedge_ms": NaN}', JSON, "JSON has no NaN", True),
    "infinity in a list": (BODY[:-1] + b', "exchanges": [-Infinity]}', "", "JSON has no -Infinity", True),
    "undefined": (BODY[:-1] + b', "hedge_ms": undefined}', JSON, "JSON has no undefined", True),
    "a comma at the end": (BODY[:-1] + b",\n}", JSON, "no comma before a closing }", True),
    "a comma at the end of a list": (BODY[:-1] + b', "exchanges": ["okx", ]}', "", "no comma before a closing ]", True),
    "a comment before it": (b"// a ticker\n" + BODY, JSON, "JSON has no comments", True),
    "a comment in it": (b"{/* {a: ticker} */" + BODY[1:], "", "JSON has no comments", True),
    "a comment behind it": (BODY + b" # { a ticker", MSGPACK, "JSON has no comments", True),
    "an object of JavaScript": (b"{method: 'fetch_ticker', id: \"t-1\"}", JSON, "in double quotes", True),
    "single quotes with others in them": (
        b"""{"x": 'a "b" \\'c\\'', "method": "fetch_ticker", "id": "t-1"}""",
        JSON,
        "in double quotes",
        True,
    ),
    "words of Python": (BODY[:-1] + b', "account": None, "x": True}', JSON, "JSON has no None", True),
    "two objects": (BODY + BODY, JSON, "several objects", True),
    "two objects on two lines": (BODY + b"\r\n" + BODY, MSGPACK, "several objects", True),
    "two maps in MessagePack": (PACKED + PACKED, MSGPACK, "several objects", True),
    "three maps in MessagePack called JSON": (PACKED * 3, JSON, "several objects", True),
    "a text of C with its end": (BODY + b"\0", JSON, "goes on behind its object, with '\\x00'", True),
    "an object and a bracket": (BODY + b"}", "", "goes on behind its object, with '}'", True),
    "cut short after the id": (b'{"id": "t-1", ' + BODY[1:-14] + b', "args": {"symbol": "BT', JSON, "cut short", True),
    "cut short in a text": (BODY[:9], MSGPACK, "cut short", False),
    "MessagePack cut short": (ID_FIRST[:-3], MSGPACK, "cut short", True),
    "MessagePack cut short between members": (ID_FIRST[: ID_FIRST.index(b"\xa4args")], "", "cut short", True),
    "a long map in MessagePack cut short": (b"\xde\x00\x10" + ID_FIRST[1:], JSON, "cut short", True),
    "a form": (b"method=fetch_ticker&symbol=BTC", "", "form", False),
    "XML": (b"<request/>", "", "XML", False),
    "nothing": (b"", "", "empty", False),
}


@pytest.mark.parametrize("case", KINDS)
def test_a_body_is_called_what_it_is(case: str) -> None:
    body, content_type, name, readable = KINDS[case]
    assert name in unreadable.what(content_type, "", body)
    assert unreadable.named(content_type, body) == (("t-1", "fetch_ticker") if readable else ("", ""))


@pytest.mark.parametrize(
    ("encoding", "named"), [("br", "'br'"), ("", ""), ("utf-8", ""), ("identity", ""), ("x" * 200, "'xxx")]
)
def test_an_encoding_that_leaves_no_mark_is_known_by_its_property(encoding: str, named: str) -> None:
    said = unreadable.what(JSON, encoding, b"\x0b\x02\x80abc\x03")
    assert (named in said) if named else said == ""
    assert len(said) < 150


# A length before a body, as frames have, and what begins like a text with zeros between its letters.
@pytest.mark.parametrize(
    "body", [len(BODY).to_bytes(4, "big") + BODY, b"\0" + BODY, b"\0\0\0\0\x05" + BODY, b"\x26\0\0\0\x02method\0"]
)
def test_a_frame_s_length_is_no_encoding(body: bytes) -> None:
    for content_type in (JSON, MSGPACK, ""):
        assert "UTF" not in unreadable.what(content_type, "", body)


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
@pytest.mark.parametrize(
    "names", [("Id", "Method"), ("ID", "METHOD"), ("requestId", "method"), ("request_id", "Method")]
)
def test_an_id_is_found_under_other_spellings(names: tuple[str, str], content_type: str) -> None:
    encode = msgspec.msgpack.encode if content_type == MSGPACK else msgspec.json.encode
    assert unreadable.named(content_type, encode(dict(zip(names, ("t-1", "fetch_ticker"), strict=True)))) == (
        "t-1",
        "fetch_ticker",
    )


def test_the_right_name_counts_before_another_spelling() -> None:
    assert unreadable.named(JSON, b'{"requestId":"other","id":"t-1"}') == ("t-1", "")


@pytest.mark.parametrize("body", [b"give me the price", PACKED[:2], bytes(range(256)), b"\xc1", b"5"])
def test_what_is_not_known_is_not_guessed(body: bytes) -> None:
    for content_type in (JSON, MSGPACK, ""):
        assert unreadable.what(content_type, "", body) == ""


@pytest.mark.parametrize("content_type", [JSON, MSGPACK, ""])
@pytest.mark.parametrize(
    ("id_", "said"), [("a", "a"), (5, "5"), (2**70, ""), (None, ""), (True, ""), ("é" * 200, ""), ([1], "")]
)
def test_an_id_is_kept_if_it_can_be_one(content_type: str, id_: Any, said: str) -> None:
    tree = {"id": id_, "method": "fetch_ticker", "strange": [[1]]}
    if id_ == 2**70:
        body, said = json.dumps(tree).encode(), str(2**70)
    else:
        body = msgspec.msgpack.encode(tree) if content_type == MSGPACK else json.dumps(tree).encode()
    assert unreadable.named(content_type, body) == (said, "fetch_ticker")


@pytest.mark.parametrize("packed", ["keys", "values", "both"])
def test_texts_that_were_packed_as_bytes_are_read(packed: str) -> None:
    as_bytes = {"keys": (True, False), "values": (False, True), "both": (True, True)}[packed]
    pairs = ((key, value) for key, value in REQUEST.items() if key != "args")
    tree = {(key.encode() if as_bytes[0] else key): (value.encode() if as_bytes[1] else value) for key, value in pairs}
    for content_type in (JSON, MSGPACK, ""):
        assert unreadable.named(content_type, msgspec.msgpack.encode(tree)) == ("t-1", "fetch_ticker")


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(), max_size=6))
def test_what_is_json_has_no_mistake_and_stays_as_it_is(tree: dict[str, Any]) -> None:
    for body in (json.dumps(tree).encode(), json.dumps(tree, ensure_ascii=False, indent=1).encode(errors="replace")):
        read = nearly_json.read(body)
        assert (json.loads(read.body), read.mistake) == (json.loads(body), "")


def test_a_long_body_is_not_looked_through() -> None:
    body = BODY[:-1] + b"," + b" " * nearly_json.LONGEST_BYTES + b"}"
    assert nearly_json.read(body) == (b"", "")


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode), st.sampled_from([JSON, MSGPACK, ""]))
def test_any_bytes_are_looked_at(body: bytes, content_type: str) -> None:
    assert len(unreadable.what(content_type, "", body)) < 200
    id_, method = unreadable.named(content_type, body)
    assert len(id_.encode()) < 256 > len(method.encode())


@settings(deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.sampled_from([JSON, MSGPACK, ""]), st.binary(max_size=8), st.integers(0, 99))
def test_any_bytes_of_a_known_kind_are_looked_at(case: str, content_type: str, noise: bytes, place: int) -> None:
    body = KINDS[case][0]
    at = place % (len(body) + 1)
    test_any_bytes_are_looked_at.hypothesis.inner_test(body[:at] + noise + body[at:], content_type)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("Object contains unknown field `symbol`", "; symbol belongs into args"),
        ("Object contains unknown field `exchange`", "; is exchanges meant?"),
        ("Object contains unknown field `deadlineMs`", "; is deadline_ms meant?"),
        ("Object contains unknown field `timeout_ms`", "; is deadline_ms meant?"),
        ("Object contains unknown field `metod`", "; is method meant?"),
        ("Expected `str`, got `int` - at `$.id`", "; id is text"),
        ("Expected `int | null`, got `str` - at `$.deadline_ms`", "; deadline_ms is a point in time in Unix millisec"),
        ("Invalid enum value 'LIVE' - at `$.priority`", "; expected one of live, bulk"),
        ("Expected `str`, got `int` - at `$.priority`", '; priority is "live" or "bulk"'),
        ("Expected `str`, got `bytes` - at `$.method`", "; texts are packed as str, not as bin (bytes)"),
        ("Expected `str` - at `key` in `$`", "; texts are packed as str, not as bin (bytes)"),
        ("Expected `str`, got `int` - at `$.exchanges[...]`", '; exchanges is a list of names, as ["okx"]'),
        ("Expected `str`, got `int` - at `$.strange`", ""),
    ],
)
def test_a_wrong_field_is_told_what_would_be_right(error: str, said: str) -> None:
    assert field(error).startswith(said) and bool(field(error)) is bool(said)


def test_every_field_says_what_it_holds() -> None:
    for name in msgspec.structs.fields(Request):
        assert f"; {name.encode_name} is " in field(f"Expected something else - at `$.{name.encode_name}`")
