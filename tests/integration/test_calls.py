"""`call`, `map` and `tail`, beside a fleet at work."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from schemas import methods
from schemas.messages import ErrorCode, Failure, Outcome, Result, Try
from schemas.operator import asked, output
from tests.support.commands import Done, command, here, started
from tests.support.fleet import Stand


async def run(stand: Stand, *words: str, given: str = "") -> Done:
    return await command(*words, broker_url=stand.url, redis_url=stand.redis.url, given=given)


async def test_a_call_prints_the_data(stand: Stand) -> None:
    done = await run(stand, "call", "fetch_ticker", "BTC/USDT", "--exchange", "okx")
    assert done.code == output.OK, done
    assert done.json["symbol"] == "BTC/USDT"
    assert done.json["last"] > 0
    assert done.err == ""
    line = await run(stand, "call", "fetchTicker", "BTC/USDT", "-e", "okx", "--raw")
    assert len(line.out.splitlines()) == 1
    assert line.json["symbol"] == "BTC/USDT"


async def test_arguments_by_name(stand: Stand) -> None:
    words = ("call", "fetch_ohlcv", "BTC/USDT", "-e", "okx", "-a", "timeframe=1m", "-a", "limit=3")
    assert len((await run(stand, *words)).json) == 3
    tickers = await run(stand, "call", "fetch_tickers", "-e", "okx", "-a", 'symbols=["BTC/USDT", "ETH/USDT"]')
    assert tickers.json.keys() == {"BTC/USDT", "ETH/USDT"}


async def test_the_whole_result_and_one_from_each(stand: Stand) -> None:
    whole = (await run(stand, "call", "fetch_time", "-e", "okx", "--result")).json
    assert (whole["ok"], whole["exchange"], whole["error"]) == (True, "okx", None)
    assert "request" not in whole
    each = (await run(stand, "call", "fetch_time", "--all")).json
    assert each.keys() == set(stand.fleet.lanes)
    some = await run(stand, "call", "fetch_time", "--all", "-e", "okx", "-e", "nowhere")
    assert some.json.keys() == {"okx"}
    assert some.code == output.WRONG
    assert "nowhere: unknown_exchange: " in some.err


async def test_an_error_says_what_happened(stand: Stand) -> None:
    done = await run(stand, "call", "fetch_ticker", "NO/PE", "-e", "okx")
    assert done.code == output.WRONG
    assert done.out == ""
    assert "bad_symbol: " in done.err.splitlines()[0]
    whole = await run(stand, "call", "fetch_ticker", "NO/PE", "-e", "okx", "--result")
    assert whole.json["error"]["code"] == "bad_symbol"
    assert whole.code == output.WRONG


async def test_an_http_call_prints_the_body_to_the_letter(stand: Stand) -> None:
    url = "https://api.binance.com/api/v3/exchangeInfo?symbol=BTCUSDT"
    done = await run(stand, "http", url, "-e", "binance")
    assert done.code == output.OK, done
    assert done.json["symbols"][0]["symbol"] == "BTCUSDT"
    assert not done.out.endswith("\n")
    whole = (await run(stand, "http", url, "-e", "binance", "--json")).json
    assert whole.keys() == {"status", "headers", "body"}
    assert (await run(stand, "http", url, "-e", "binance", "--result")).json["method"] == "http"
    wrong = await run(stand, "http", "https://api.binance.com/api/v3/depth?symbol=NONE", "-e", "binance")
    assert wrong.code == output.WRONG
    assert wrong.json["code"] == -1121
    assert "binance answered with status 400" in wrong.err
    elsewhere = await run(stand, "http", "https://www.okx.com/api/v5/public/time", "-e", "binance")
    assert elsewhere.code == output.WRONG
    assert "binance has no public API at https://www.okx.com" in elsewhere.err
    for address, says in {"ftp://x/": "expected the whole address", "https://a:b@x/": "a user"}.items():
        refused = await run(stand, "http", address, "-e", "binance")
        assert refused.code == output.USAGE
        assert says in refused.err


async def test_where_no_fleet_ever_ran(vhost: str) -> None:
    for words in (("call", "fetch_time"), ("tail",)):
        done = await command(*words, broker_url=vhost)
        assert done.code == output.AWAY, done
        assert "Traceback" not in done.err
        assert "start" in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("fetch_tickr",), "perhaps fetch_ticker"),
        (("create_order",), "is not a read"),
        (("fetch_balance",), "name one in 'account'"),
        (("fetch_time", "-a", "limit"), "expected name=value"),
        (("fetch_time", "-a", "limit=1", "-a", "limit=2"), "stands there twice"),
        (("fetch_time", "--strategy", "fast"), "expected one of weighted_round_robin"),
        (("fetch_time", "--deadline", "-1"), "--deadline"),
        (("fetch_time", "--deadline", "5s"), "expected seconds, from 0.001 to 86400, not '5s'"),
        (("fetch_time", "--deadline", "nan"), "expected seconds"),
        (("fetch_time", "--hedge", "-1"), "expected seconds, from 0.001 to 3600"),
        (("fetch_time", "--max-age", "bars"), "expected seconds, from 0 to 86400, not 'bars'"),
        (("fetch_time", "-e", ""), "exchanges"),
        (("fetch_time", "-e", "okx,"), "exchanges"),
        (("fetch_ohlcv", "BTC/USDT", "1h"), "'1h': beside its symbol a read's arguments go by name"),
        (("fetch_ohlcv", "BTC/USDT", "--limit", "5"), "no such option: --limit; an argument of the read goes by name"),
        (("fetch_ohlcv", "BTC/USDT", "--exchang=okx"), "is --exchange meant?"),
    ],
)
def test_what_can_t_be_asked_is_told_before_anything_is_sent(words: tuple[str, ...], says: str) -> None:
    done = here("call", *words, env={"FLEET_BROKER_URL": "amqp://127.0.0.1:1/"})
    assert done.code == output.USAGE
    assert says in " ".join(done.err.replace("│", " ").split())


def test_a_pattern_that_fits_no_result_is_not_waited_for() -> None:
    done = here("tail", "okx", env={"FLEET_BROKER_URL": "amqp://127.0.0.1:1/"})
    assert done.code == output.USAGE
    assert "<exchange>.<method>.<ok or error>" in done.err


def test_every_code_says_who_has_to_act() -> None:
    assert set(asked.ACTS) == set(ErrorCode)


def test_an_error_is_told_once() -> None:
    result = Result(
        "a-1", False, "fetch_ticker", error=Failure(ErrorCode.INVALID_ARGUMENTS, "no such argument"),
        attempts=[
            Try("okx", Outcome.FAILED, ErrorCode.EXCHANGE_TIMEOUT, "no answer"),
            Try("htx", Outcome.REJECTED, ErrorCode.INVALID_ARGUMENTS, "no such argument"),
        ],
    )  # fmt: skip
    told = asked.told(result)
    assert told.count("no such argument") == 1
    assert "no answer" in told
    assert told.endswith("request a-1: the same one would fail again: change it")


def test_one_word_may_name_several_exchanges() -> None:
    assert asked.names(["okx,binance", "kraken"]) == ["okx", "binance", "kraken"]


@pytest.mark.parametrize("method", sorted(methods.PUBLIC_READS))
def test_a_read_by_the_name_of_other_languages(method: str) -> None:
    first, *rest = method.split("_")
    camel = first + "".join(word.capitalize() for word in rest)
    made = asked.request(
        camel,
        {},
        exchanges=[],
        everyone=False,
        account=None,
        strategy=None,
        deadline_s=1,
        bulk=False,
        hedge_s=None,
        max_age_ms=None,
    )
    assert made.method == method


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("1.5", 1.5), ("BTC/USDT", "BTC/USDT"), ('"5"', "5"), ("[1]", [1]), ("true", True), ("a=b", "a=b")],
)
def test_values_are_json_or_texts(text: str, value: Any) -> None:
    assert asked.arguments(None, [f"x={text}"]) == {"x": value}


def lines(count: int) -> str:
    names = ("binance", "okx", "htx")
    return "".join(
        json.dumps({"method": "fetch_time", "id": f"r{number}", "exchanges": [names[number % 3]]}) + "\n"
        for number in range(count)
    )


async def test_many_from_a_file_and_from_standard_input(stand: Stand, tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(lines(60), encoding="utf-8")
    for file, given in ((str(path), ""), ("-", lines(60))):
        done = await run(stand, "map", file, given=given)
        results = [json.loads(line) for line in done.out.splitlines()]
        assert {each["id"] for each in results} == {f"r{number}" for number in range(60)}
        assert all(each["ok"] for each in results)
        assert "request" not in results[0]
        assert done.code == output.OK, done.err
        assert done.err.startswith("60 ok in ")


async def test_lines_that_are_no_request_are_told_and_passed_over(stand: Stand) -> None:
    given = '{"method": "fetch_time", "id": "good"}\n\nnonsense\n{"method": 5}\n{"metod": "x"}\n[1]\n'
    done = await run(stand, "map", "-", "--exchange", "okx", "--data", given=given)
    assert done.code == output.WRONG
    [result] = [json.loads(line) for line in done.out.splitlines()]
    assert (result["id"], result["exchange"]) == ("good", "okx")
    for number in (3, 4, 5, 6):
        assert f"line {number} is no request: " in done.err
    assert "1 ok, 4 lines are no request" in done.err


async def test_errors_are_counted(stand: Stand) -> None:
    given = '{"method": "fetch_ticker", "args": {"symbol": "NO/PE"}, "exchanges": ["okx"]}\n'
    done = await run(stand, "map", "-", given=given)
    assert done.code == output.WRONG
    assert "0 ok, 1 bad_symbol in " in done.err
    assert json.loads(done.out)["error"]["code"] == "bad_symbol"


async def test_the_stream_is_read_along(stand: Stand) -> None:
    child = await started("tail", "okx.fetch_time.*", "--times", "2", broker_url=stand.url)
    while child.returncode is None:
        await stand.client.publish(b'{"method": "fetch_time", "exchanges": ["okx"]}')
        await stand.client.publish(b'{"method": "fetch_time", "exchanges": ["htx"]}')
        await asyncio.sleep(0.2)
    assert child.stdout is not None
    out = (await child.stdout.read()).decode().splitlines()
    assert [line.split()[2:4] for line in out] == [["okx", "fetch_time"]] * 2
    assert child.returncode == output.OK


async def test_ctrl_c_ends_the_stream(stand: Stand) -> None:
    child = await started("tail", "--json", broker_url=stand.url)
    assert child.stdout is not None
    async with asyncio.timeout(60):
        line = asyncio.create_task(child.stdout.readline())
        while not line.done():
            await stand.client.publish(b'{"method": "fetch_time", "exchanges": ["okx"]}')
            await asyncio.wait([line], timeout=0.2)
        assert json.loads(line.result())["exchange"] == "okx"
        child.send_signal(signal.SIGINT)
        _, err = await child.communicate()
    assert child.returncode == output.STOPPED
    assert b"Traceback" not in err


async def test_ctrl_c_ends_a_map_whose_lines_do_not_come(vhost: str) -> None:
    child = await started("map", "-", broker_url=vhost)
    assert child.stdin is not None
    assert child.stderr is not None
    child.stdin.write(b"\xff\n")  # it is told of this one once it reads
    async with asyncio.timeout(60):
        assert b"line 1 is no request" in await child.stderr.readline()
        child.send_signal(signal.SIGINT)
        assert await child.wait() == output.STOPPED
