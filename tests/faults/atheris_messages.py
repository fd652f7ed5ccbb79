"""Coverage-guided fuzzing of everything that reads foreign input: ``python -m tests.faults.atheris_messages``.

It needs atheris, which is no dependency of this project: make a copy of the environment, and install it there
(``cp -r .venv /tmp/atheris && /tmp/atheris/bin/python -m pip install atheris``), then run this module with its Python.
Further arguments are libFuzzer's, e.g. ``-max_total_time=300``; the first folder among them keeps what reached new
code.
The run stops at the first input with an unexpected answer, and keeps it in a file.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import msgspec
from pamqp.commands import Basic

try:
    import atheris  # type: ignore[import-untyped]  # pyright: ignore[reportMissingImports]
except ImportError:
    sys.exit("atheris is missing: cp -r .venv /tmp/atheris && /tmp/atheris/bin/python -m pip install atheris")

fuzzer: Any = atheris
with fuzzer.instrument_imports(include=["schemas", "dispatcher", "workers", "tomllib"]):
    from dispatcher import intake
    from dispatcher.circuit import State
    from dispatcher.router import End, Router
    from schemas import config
    from schemas.errors import ConfigError, InvalidMessage
    from schemas.messages import (
        JSON,
        MSGPACK,
        Attempt,
        ErrorCode,
        Outcome,
        Request,
        Try,
        decode_attempt,
        decode_letter,
        encode,
    )
    from schemas.operator import dead
    from schemas.reports import decode_report
    from schemas.runtime import results
    from tests.faults.inputs import STRANGE_IN_JSON, STRANGE_IN_MSGPACK, Inputs
    from workers.exchange import arguments, settings
    from workers.limits import costs

LANES: Final = ("okx", "binance.eu1", "binance")
NOW_MS: Final = 1_800_000_000_000
NOW_S: Final = 1_000.0
SEEDS: Final = 100
CONFIG: Final = config.parse(Path("x"), b"".join(b"[lanes.'%s']\n" % name.encode() for name in LANES), {})
CCXT: Final[Any] = ccxt.coinbase()
TAKES: Final = {
    name: arguments.takes(getattr(CCXT, name))
    for name in ("fetch_ticker", "fetch_ohlcv", "fetch_trades", "fetch_tickers")
}
IN_PATH: Final = arguments.path_keys(CCXT.api)


def route(attempt: Attempt) -> None:
    """All that a dispatcher decides of an attempt, and what it publishes of it."""
    router = Router(CONFIG)
    for health in router.health.values():
        health.silent_at_s = math.inf
    for rested in (False, True):
        for part in router.fan_out(router.less_removed(attempt)):
            decision = router.decide(part, NOW_S, NOW_MS, rested=rested)
            code = decision.code if isinstance(decision, End) else ErrorCode.INTERNAL
            result = results.failure(part, code, "why")
            assert results.results_key(result).endswith(".error")
            for content_type in (JSON, MSGPACK):
                encode(result, content_type)
            again = encode(part.handed_back(Try("okx", Outcome.THROTTLED, ErrorCode.NO_BUDGET)))
            assert encode(decode_attempt(again)) == again
    router.hedge(attempt, NOW_S, NOW_MS)


def work(request: Request) -> None:
    """What a worker checks before ccxt sees a request."""
    accepted = TAKES.get(request.method, TAKES["fetch_ohlcv"])
    try:
        arguments.check(request.method, accepted, request.args, IN_PATH)
    except InvalidMessage as error:
        assert error.code is ErrorCode.INVALID_ARGUMENTS
        assert len(error.message) < 2_000


def take_request(body: bytes, content_type: str) -> None:
    """Refused, or routed."""
    properties = Basic.Properties(content_type=content_type, correlation_id="c")
    try:
        attempt = intake.read(intake.envelope(properties, body, NOW_MS), body, 30)
        intake.check(attempt, ())
    except InvalidMessage:
        return
    route(attempt)
    work(attempt.request)


def take_attempt(body: bytes) -> None:
    """Not an attempt, or one that can go any way."""
    try:
        attempt = decode_attempt(body)
    except msgspec.DecodeError:
        return
    route(attempt)
    work(attempt.request)


def take_report(body: bytes) -> None:
    """Not a report, or one after which all that is known of lanes can still be reckoned with."""
    try:
        report = decode_report(body)
    except msgspec.DecodeError:
        return
    router = Router(CONFIG)
    for number in range(3):
        router.observe(report, NOW_S + number)
    for health in router.health.values():
        now_s = NOW_S + 2
        assert health.state(now_s) in State
        health.reason(now_s)
        health.memory(now_s, NOW_MS)
        load = health.load
        figures = (health.share, load.latency_ms, load.usual_ms, load.budget_ms, health.slowness)
        assert all(map(math.isfinite, figures)), figures
    request = Request("fetch_ticker", {"symbol": "BTC/USDT"}, deadline_ms=NOW_MS + 1_000)
    router.decide(Attempt(request, "", 0, NOW_MS), NOW_S + 2, NOW_MS, rested=True)


def take_letter(body: bytes) -> None:
    """It is no letter, or its request can be sent again, or it is refused."""
    try:
        letter = decode_letter(body)
    except msgspec.DecodeError:
        return
    attempt = dead.Letter("key", **msgspec.structs.asdict(letter)).request()
    if attempt is not None:
        encode(attempt.request, attempt.content_type)


def take_configuration(body: bytes) -> None:
    """It is refused with what was expected; or a dispatcher starts with it, and workers read or refuse its limits."""
    try:
        read = config.parse(Path("x"), body, {})
        Router(read)
        settings.check(read)
        for name, limits in read.limits.items():
            costs.load(name, 50, own=limits)
    except ConfigError:
        return


def take_json(body: bytes) -> None:
    """A request in JSON."""
    take_request(body, JSON)


def take_msgpack(body: bytes) -> None:
    """A request in MessagePack."""
    take_request(body, MSGPACK)


# An input's first byte says to which of them the rest goes.
TARGETS: Final[tuple[Callable[[bytes], None], ...]] = (
    take_json,
    take_msgpack,
    take_attempt,
    take_report,
    take_letter,
    take_configuration,
)


def take(data: bytes) -> None:
    """One input."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def change(data: bytes, longest: int, seed: int) -> bytes:
    """Half of the inputs are changed in their structure, the others in their bytes."""
    target = TARGETS[data[0] % len(TARGETS)] if data else take_json
    inputs = Inputs(seed, LANES)
    if seed % 2 and target is not take_configuration:
        try:
            if target is take_json:
                made = msgspec.json.encode(inputs.changed(msgspec.json.decode(data[1:]), STRANGE_IN_JSON))
            else:
                made = msgspec.msgpack.encode(inputs.changed(msgspec.msgpack.decode(data[1:]), STRANGE_IN_MSGPACK))
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError):
            pass
        else:
            return (data[:1] + made)[:longest]
    changed: bytes = fuzzer.Mutate(data, longest)
    return changed


def sow(folder: Path) -> None:
    """Puts inputs of every kind there to begin with."""
    inputs = Inputs(1, LANES)
    for number in range(SEEDS):
        bodies = (
            inputs.request("t", JSON).body,
            inputs.request("t", MSGPACK).body,
            inputs.attempt("t"),
            inputs.report(),
            inputs.letter("t"),
            inputs.configuration(),
        )
        for target, body in enumerate(bodies):
            (folder / f"seed-{target}-{number}").write_bytes(bytes([target]) + body)


def main() -> None:
    """Runs until libFuzzer ends it."""
    folders = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    for folder in folders[:1]:
        folder.mkdir(parents=True, exist_ok=True)
        sow(folder)
    fuzzer.Setup(sys.argv, take, custom_mutator=change)
    fuzzer.Fuzz()


if __name__ == "__main__":
    main()
