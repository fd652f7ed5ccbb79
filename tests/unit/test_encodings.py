"""What is taken for a request, and that the JSON Schema says the same."""

import copy
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic

from dispatcher import intake
from schemas import jsonschema
from schemas.encodings import EXACT_BELOW, decode_request
from schemas.errors import InvalidMessage
from schemas.messages import JSON, MSGPACK, SHORT_LIMIT_BYTES, ErrorCode, Request

NOW_MS: Final = 1_800_000_000_000
SCHEMA: Final = jsonschema.schema(Request)
ENCODINGS: Final = pytest.mark.parametrize("content_type", [JSON, MSGPACK])
TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "string": str,
    "object": dict,
    "array": list,
    "null": type(None),
    "number": (int, float),
    "boolean": bool,
}


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a value is valid by a schema: JSON Schema 2020-12, as far as ours use it."""
    known = {"type", "anyOf", "enum", "maxLength", "minLength", "maxItems", "items", "properties", "required"}
    known |= {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "additionalProperties"}
    known |= {"$schema", "title", "description", "default", "$defs", "$ref", "minItems"}
    assert schema.keys() <= known, schema.keys() - known
    if "$ref" in schema:
        return fits(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], value)
    if "anyOf" in schema and not any(fits(each, value) for each in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "type" in schema and not is_a(schema["type"], value):
        return False
    if isinstance(value, str):
        return bool(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf))
    if isinstance(value, list):
        return fits_list(schema, value)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, dict):
        return fits_table(schema, value)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return bool(
            schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
            and schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf)
        )
    return True


def is_a(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":  # 6.1.1: any number with a zero fractional part
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, TYPES[kind])


def fits_list(schema: Mapping[str, Any], items: list[Any]) -> bool:
    if not schema.get("minItems", 0) <= len(items) <= schema.get("maxItems", math.inf):
        return False
    return all(fits(schema.get("items", {}), item) for item in items)


def fits_table(schema: Mapping[str, Any], table: Mapping[str, Any]) -> bool:
    properties: Mapping[str, Any] = schema.get("properties", {})
    if not all(name in table for name in schema.get("required", ())):
        return False
    if schema.get("additionalProperties", True) is False and not table.keys() <= properties.keys():
        return False
    return all(fits(properties.get(name, {}), value) for name, value in table.items())


def taken(body: bytes, content_type: str) -> bool:
    """Whether an intake reads it. Arguments are more than a schema says; they have a code of their own."""
    envelope = intake.envelope(Basic.Properties(content_type=content_type), body, NOW_MS)
    try:
        intake.read(envelope, body, 30)
    except InvalidMessage as error:
        return error.code is ErrorCode.INVALID_ARGUMENTS
    return True


NUMBERS: Final = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-5, 5_000_000),
    st.sampled_from([2**53 - 1, 2**53, 2**53 + 1, -(2**53), 2**64 - 1, 4_100_000_000_000, 3_600_000, 3_600_001]),
).flatmap(lambda number: st.sampled_from([number, float(number), number + 0.5]))
VALUES: Final[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
GOOD: Final[Mapping[str, Any]] = {
    "method": st.sampled_from(["fetch_ticker", "x" * 128, "x" * 129, "é" * 128]),
    "args": st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
    "id": st.sampled_from(["", "a", "x" * 255, "x" * 256, "\0"]),
    "exchanges": st.lists(st.sampled_from(["okx", "kraken.eu", ""]), max_size=3),
    "exchanges_mode": st.sampled_from(["any", "all", "both"]),
    "strategy": st.sampled_from(["failover", "adaptive", "best"]),
    "deadline_ms": NUMBERS,
    "priority": st.sampled_from(["live", "bulk", "high"]),
    "hedge_ms": NUMBERS,
    "account": st.sampled_from(["main", ""]),
    "max_age_ms": NUMBERS | st.sampled_from(["bar", "5", 86_400_000, 86_400_001, 0, True]),
    "http": st.fixed_dictionaries(
        {"url": st.sampled_from(["https://a.example/b", "file:///etc", ""])},
        optional={
            "method": st.sampled_from(["GET", "POST", "PUT", None]),
            "body": st.sampled_from(["", "{}", None, 5]),
            "headers": VALUES,
        },
    ),
}


@st.composite
def requests(draw: st.DrawFn) -> Any:
    """Good in most fields, and null, of any other type, or unknown in some."""
    names = draw(st.sets(st.sampled_from(list(GOOD))))
    if draw(st.integers(0, 3)) == 0:  # for an HTTP call
        names = names - {"method", "args", "account"} | {"http", "exchanges"}
    elif draw(st.integers(0, 9)):
        names |= {"method"}
    tree = {name: draw(GOOD[name] if draw(st.integers(0, 4)) else st.none() | VALUES) for name in sorted(names)}
    if not draw(st.integers(0, 9)):
        tree[draw(st.text(max_size=6))] = draw(VALUES)
    return tree


@ENCODINGS
@settings(max_examples=settings().max_examples * 5, deadline=None)
@given(tree=requests())
@example(tree={"method": "fetch_ticker", **dict.fromkeys(set(GOOD) - {"method"})})
@example(tree={"method": "fetch_ticker", "http": {"url": "https://a.example/b"}, "exchanges": ["okx"]})
@example(tree={"method": None})
@example(tree={"http": {"url": "https://a.example/b", "body": None}, "exchanges": ["okx"], "method": None, "args": {}})
@example(tree={"method": "fetch_ticker", "deadline_ms": 4.1e12, "hedge_ms": 5.0})
@example(tree={"http": {"url": "https://a.example/b", "headers": None}, "exchanges": ["okx"], "id": None})
def test_schema_and_decoder_agree(content_type: str, tree: Any) -> None:
    if len(str(tree.get("id", "")).encode()) > SHORT_LIMIT_BYTES >= len(str(tree.get("id", ""))):
        return  # a schema counts characters, AMQP bytes
    encode = msgspec.json.encode if content_type == JSON else msgspec.msgpack.encode
    assert taken(encode(tree), content_type) is fits(SCHEMA, tree)


@ENCODINGS
@settings(deadline=None)
@given(tree=requests())
def test_a_request_is_the_same_with_floats_and_nulls(content_type: str, tree: Any) -> None:
    encode = msgspec.json.encode if content_type == JSON else msgspec.msgpack.encode

    def read(of: Any) -> Request | ErrorCode:
        envelope = intake.envelope(Basic.Properties(message_id="m"), b"", NOW_MS)
        try:
            return intake.read(msgspec.structs.replace(envelope, content_type=content_type), encode(of), 30).request
        except InvalidMessage as error:
            return error.code

    written = {name: floated(value) for name, value in copy.deepcopy(tree).items()}
    call: Any = tree.get("http")
    if isinstance(call, dict) and "" not in call:
        del written["http"][""]  # unlike arguments it has no unknown fields, also where they are null
    written = dict.fromkeys(set(GOOD) - tree.keys() - {"method"}) | written
    assert read(written) == read(tree)


def floated(value: Any) -> Any:
    """As JavaScript's packers write it: every number a float."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < EXACT_BELOW else value
    if isinstance(value, list):
        return [floated(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        table: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return {name: floated(each) for name, each in table.items()} | ({} if "" in table else {"": None})
    return value


@ENCODINGS
@pytest.mark.parametrize("number", [2.0**53, 1.8e18, 1e300, -(2.0**53), 4.1e12 + 0.5])
def test_a_float_that_may_not_be_the_number_that_was_meant_is_refused(content_type: str, number: float) -> None:
    encode = msgspec.json.encode if content_type == JSON else msgspec.msgpack.encode
    with pytest.raises(msgspec.ValidationError, match="deadline_ms"):
        decode_request(content_type, encode({"method": "fetch_time", "deadline_ms": number}))


def test_a_byte_order_mark_is_taken() -> None:
    body = b'\xef\xbb\xbf{"method":"fetch_time","deadline_ms":null}'
    assert decode_request(JSON, body) == decode_request("", body) == Request("fetch_time")
