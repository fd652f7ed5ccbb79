"""Bad inputs drawn from a seed: messages of every kind, and configurations, with something wrong in each.

An input is a good message with parts replaced, left out, added or renamed. In half of the inputs bytes of the encoded
body are changed too. In a fifth only the arguments are wrong, so that they reach a worker. Some are valid by chance;
those that are valid on purpose have a deadline of seconds.
"""

import base64
import gzip
import json
import random
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import tomli_w
from msgspec import Struct

from schemas.messages import JSON, MSGPACK, DeadLetter, ErrorCode, Outcome, Try
from schemas.reports import Report
from schemas.runtime.results import now_ms
from schemas.topology import BULK_REQUESTS, REQUESTS, RETURNED

VALID: Final = 0.02
BAD_ARGUMENTS: Final = 0.2
LONGEST_WITHIN_MS: Final = 3_000
METHODS: Final = ("fetch_ticker", "fetch_order_book", "fetch_ohlcv", "fetch_trades", "fetch_tickers", "load_markets")
SYMBOLS: Final = ("BTC/USDT", "ETH/USDT", "NO/SUCH")
STRANGE: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**64 - 1, -(2**63), 0.5, -0.5, 1e308),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        "x",
        "x" * 300,
        "é" * 200,
        "\0",
        "../time",
        "a?b#c",
        "\r\n",
        "nan",
    ),
    *(
        "BTC/USDT",
        "fetch_ticker",
        "create_order",
        "__class__",
        "okx",
        "mtgox",
        "all",
        "bulk",
        "live",
        "ok",
        "no_budget",
    ),
    *(
        [],
        [[]],
        [None],
        ["BTC/USDT"],
        ["BTC/USDT", {}],
        [1, "x", None],
        ["x"] * 500,
        {},
        {"": ""},
        {"a": {"b": [["x"]]}},
    ),
)
# What only one of the encodings can say.
STRANGE_IN_JSON: Final[tuple[Any, ...]] = (*STRANGE, 10**40, -(10**25), "\ud800", {"\udfff": 1})
STRANGE_IN_MSGPACK: Final[tuple[Any, ...]] = (
    *(*STRANGE, b"", b"\xff\xfe", msgspec.msgpack.Ext(5, b"x"), datetime(2026, 1, 1, tzinfo=UTC)),
    *({1: 2}, {None: None}, {b"x": 1}, {1.5: [True]}),
)
CONTENT_TYPES: Final = (JSON, MSGPACK, None, "", "text/plain", "application/json; charset=utf-16", "\0", "x" * 255)
# Other forms of a body.
FORMS: Final[tuple[Callable[[bytes], bytes], ...]] = (
    *(
        gzip.compress,
        zlib.compress,
        base64.b64encode,
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: repr(body).encode(),
    ),
    *(lambda body: body.decode("latin-1").encode("utf-16"), lambda body: body.decode("latin-1").encode("utf-32-be")),
    *(lambda body: b"[" + body + b"]", lambda body: json.dumps(body.decode("latin-1")).encode()),
)
PIECES: Final = (b"\xc1", b"\xff\xff\xff\xff", b"\x00", b"\x91" * 40, b"[" * 40, b"{}", b'"', b"\xdf\xff\xff\xff\xff")


class Input(Struct, frozen=True):
    """One message to publish.

    Args:
        kind: what it was meant to be, for the table.
        body: its body.
        content_type: as the message has it.
    """

    kind: str
    body: bytes
    content_type: str | None = MSGPACK


class Inputs:
    """The inputs of one seed, in one order; only their times follow the clock.

    Args:
        seed: all else follows from it.
        lanes: the lanes of the fleet that they go to.
    """

    def __init__(self, seed: int, lanes: Sequence[str]) -> None:
        self._rng = random.Random(f"inputs {seed}")
        self._lanes = list(lanes)

    def request(self, token: str, content_type: str) -> Input:
        """A request in this encoding; its answer is known by the properties, whatever the body says."""
        kind = "requests in JSON" if content_type == JSON else "requests in MessagePack"
        if self._rng.random() < VALID:
            return Input("valid requests", _encode(self._plain_request(token), content_type), content_type)
        body = self._bad(self._plain_request(token), content_type)
        if self._rng.random() < 0.05:
            return Input(kind, self._rng.choice(FORMS)(body), self._rng.choice(CONTENT_TYPES))
        if self._rng.random() < 0.1:
            return Input(kind, body, self._rng.choice(CONTENT_TYPES))
        return Input(kind, body, content_type)

    def attempt(self, token: str) -> bytes:
        """What a dispatcher or worker might have published, known by its correlation id as far as it has one."""
        return self._bad(self._plain_attempt(token), MSGPACK, token)

    def report(self) -> bytes:
        """A worker's report. Where it is readable, it pauses no lane that the fleet has for ever."""
        body = self._bad(self._plain_report(), MSGPACK)
        try:
            report = msgspec.msgpack.decode(body, type=Report)
        except ValueError:
            return body
        lanes = [
            msgspec.structs.replace(lane, paused_until_ms=min(lane.paused_until_ms, now_ms() + 100))
            for lane in report.lanes
        ]
        return msgspec.msgpack.encode(msgspec.structs.replace(report, lanes=lanes))

    def letter(self, token: str) -> bytes:
        """What might lie in `fleet.dead`: a letter with a bad message in it, or a bad letter."""
        origin = self._rng.choice((REQUESTS, BULK_REQUESTS, RETURNED))
        of_request = origin != RETURNED
        content_type = self._rng.choice((JSON, MSGPACK))
        body = self._bad(self._plain_request(token), content_type) if of_request else self.attempt(token)
        letter = DeadLetter(
            *(ErrorCode.UNREADABLE, "why", origin, now_ms(), body),
            request_id=token,
            content_type=content_type if of_request else MSGPACK,
            correlation_id=token,
        )
        if self._rng.random() < 0.7:
            return msgspec.msgpack.encode(letter)
        return self._bad(msgspec.to_builtins(letter, builtin_types=(bytes,)), MSGPACK, token)

    def configuration(self) -> bytes:
        """A configuration's file."""
        rng = self._rng
        strange = [value for value in STRANGE if value is not None]
        tree: Any = {
            "lanes": {rng.choice(("okx", "binance.eu1", "a.bulk", "É")): {"weight": 1.0, "proxy": "http://p:1"}},
            "broker": {"urls": ["amqp://h/"], "heartbeat_s": 5},
            "redis": {"url": "redis://h/0", "timeout_s": 1.0},
            "dispatcher": {"strategy": "adaptive", "methods": ["fetch_ticker"], "error_rate": 0.5},
            "worker": {"in_flight": 5},
            "groups": {"g": {"exchanges": ["okx"]}},
            "limits": {"okx": {"buckets": {"ip": {"amount": 5}}, "default": [{"ip": 1}]}},
            "accounts": {"main": {"api_key": {"env": "KEY"}}},
        }
        for _ in range(rng.randint(1, 4)):
            tree = self.changed(tree, strange)
        try:
            body = tomli_w.dumps(tree).encode()
        except (TypeError, ValueError, AttributeError):  # TOML has no such value: then its text is the input
            body = repr(tree).encode()
        return self._noisy(body) if rng.random() < 0.5 else body

    def _plain_request(self, token: str) -> dict[str, Any]:
        rng = self._rng
        request: dict[str, Any] = {
            "method": rng.choice(METHODS),
            "args": {"symbol": rng.choice(SYMBOLS)},
            "id": token,
            "deadline_ms": now_ms() + rng.randint(500, LONGEST_WITHIN_MS),
        }
        optional: dict[str, Callable[[], object]] = {
            "exchanges": lambda: rng.sample(self._lanes, rng.randint(1, len(self._lanes))),
            "exchanges_mode": lambda: rng.choice(("any", "all")),
            "strategy": lambda: rng.choice(("failover", "adaptive")),
            "priority": lambda: rng.choice(("live", "bulk")),
            "hedge_ms": lambda: rng.randint(1, 1000),
            "account": lambda: "main",
        }
        return request | {name: make() for name, make in optional.items() if rng.random() < 0.15}

    def _plain_attempt(self, token: str) -> dict[str, Any]:
        rng = self._rng
        tries = [
            Try(rng.choice(self._lanes), rng.choice(list(Outcome)), rng.choice([None, *ErrorCode]), "why", 1.0, 2.0)
            for _ in range(rng.choice((0, 0, 0, 1, 3)))
        ]
        attempt: dict[str, Any] = {
            "request": self._plain_request(token),
            "lane": rng.choice([*self._lanes, ""]),
            "number": rng.randint(0, 5),
            "received_ms": now_ms(),
            "correlation_id": token,
            "tries": msgspec.to_builtins(tries),
        }
        optional: dict[str, object] = {
            "content_type": rng.choice((JSON, MSGPACK)),
            "reply_to": "nobody",
            "throttled": 3,
            "max_wait_ms": 100.0,
            "timeout_ms": 500.0,
            "trial": True,
            "results": 2,
            "hedge": True,
            "repeated": True,
            "probe": True,
            "digest": "8d2f6e0a4b7c",
            "taken": token,
            "copy": True,
        }
        return attempt | {name: value for name, value in optional.items() if rng.random() < 0.1}

    def _plain_report(self) -> dict[str, Any]:
        rng = self._rng
        lane = {
            "lane": rng.choice([*self._lanes, "mtgox"]),
            "ok": rng.randint(0, 9),
            "failed": {"exchange_error": 1},
            "in_flight": 1,
            "exchange_ms": 10.0,
            "buckets": {"ip": {"used": 0.5, "paused_ms": 5}},
            "slowness": 1.0,
            "unanswered": 2,
            "silent_ms": 5.0,
        }
        return {"worker": f"stranger-{rng.randint(1, 10**9)}", "sent_ms": now_ms(), "lanes": [lane]}

    def _bad(self, tree: dict[str, Any], content_type: str, token: str = "") -> bytes:
        rng = self._rng
        strange = STRANGE_IN_JSON if content_type == JSON else STRANGE_IN_MSGPACK
        request = tree.get("request", tree)
        if "args" in request and rng.random() < BAD_ARGUMENTS:
            args = {**request["args"], "limit": 5, "since": 0, "params": {"type": "spot", "until": 1}}
            name = rng.choice(list(args))
            request["args"] = args | {rng.choice((name, name, "x")): self.changed(args[name], strange)}
            return _encode(tree, content_type)
        changed: Any = tree
        for _ in range(rng.randint(1, 3)):
            changed = self.changed(changed, strange)
        if token and isinstance(changed, dict):
            attempt: dict[Any, Any] = changed  # pyright: ignore[reportUnknownVariableType]
            if isinstance(said := attempt.get("correlation_id"), str):
                attempt["correlation_id"] = token + (said if len(said) > 100 else "")
        body = _encode(changed, content_type)
        return self._noisy(body) if rng.random() < 0.5 else body

    def changed(self, tree: Any, strange: Sequence[Any]) -> Any:
        """The tree with one thing changed, somewhere in it."""
        rng = self._rng
        if isinstance(tree, dict) and tree and rng.random() < 0.85:
            return self._changed_table(tree, strange)  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(tree, list) and tree and rng.random() < 0.7:
            items: list[Any] = tree  # pyright: ignore[reportUnknownVariableType]
            place = rng.randrange(len(items))
            return [*items[:place], self.changed(items[place], strange), *items[place + rng.randrange(2) :]]
        return rng.choice(strange)

    def _changed_table(self, table: dict[Any, Any], strange: Sequence[Any]) -> dict[Any, Any]:
        rng = self._rng
        key = rng.choice(list(table))
        match rng.randrange(8):
            case 0:
                return {name: value for name, value in table.items() if name != key}
            case 1:
                return table | {rng.choice([*table, "x", "", "é" * 130]): rng.choice(strange)}
            case 2:
                return {(f"{name}x" if name == key else name): value for name, value in table.items()}
            case _:
                return table | {key: self.changed(table[key], strange)}

    def _noisy(self, body: bytes) -> bytes:
        """The body with some of its bytes changed."""
        rng = self._rng
        for _ in range(rng.randint(1, 3)):
            place = rng.randint(0, len(body))
            end = place + rng.randint(0, 8)
            match rng.randrange(6):
                case 0:
                    body = body[:place]
                case 1:
                    body = body[:place] + body[end:]
                case 2:
                    body = body[:place] + rng.choice(PIECES) + body[place:]
                case 3:
                    body = body[:place] + rng.randbytes(end - place) + body[end:]
                case 4:
                    body = body[:place] + body[rng.randint(0, place) :]
                case _:
                    if body[place:]:
                        body = body[:place] + bytes([body[place] ^ 1 << rng.randrange(8)]) + body[place + 1 :]
        return body


def _encode(tree: Any, content_type: str) -> bytes:
    # The library that knows NaN and half surrogates, which others send.
    return json.dumps(tree).encode() if content_type == JSON else msgspec.msgpack.encode(tree)
