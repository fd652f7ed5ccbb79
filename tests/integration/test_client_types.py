"""A program that uses the client passes strict type checkers where neither ccxt nor the checkout is at hand."""

import asyncio
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
from datetime import UTC, datetime, timedelta
from typing import assert_type

from ccxt_fleet import All, Answer, Fleet, FleetError, FleetSync, Request, RequestFailed, to_frame
from ccxt_fleet.client.types import OHLCV, Order, OrderBook, Ticker


async def main() -> None:
    async with Fleet("amqp://localhost/", deadline=timedelta(seconds=5)) as fleet:
        ticker = await fleet.fetch_ticker("BTC/USDT", exchanges=["binance", "okx"], deadline=timedelta(seconds=5))
        assert_type(ticker, Ticker)
        assert_type(ticker["last"], float | None)
        assert_type(await fleet.fetch_ohlcv("BTC/USDT", "1m", None, 5, {"x": 1}, hedge=timedelta(hours=1)), list[OHLCV])
        assert_type(await fleet.fetch_order_book("BTC/USDT", exchanges="okx", mode="all"), All[OrderBook])
        assert_type(await fleet.fetch_open_orders(account="main", deadline=datetime.now(UTC)), list[Order])
        assert_type(await fleet.request("fetch_time", {}, priority="bulk", id="mine"), Answer)
        assert_type(await fleet.request("fetch_time", mode="all"), list[Answer])
        requests = (Request("fetch_ticker", {"symbol": symbol}) for symbol in ("BTC/USDT", "ETH/USDT"))
        async for answer in fleet.map(requests, concurrency=5):
            assert_type(answer, Answer)
            print(answer.request.args, answer.exchange, answer.attempts[0].exchange_ms)
        async with fleet.results("binance.fetch_trades.*") as results:
            async for result in results:
                print(result.data)
        try:
            await fleet.fetch_tickers(["BTC/USDT"], strategy="failover")
        except RequestFailed as error:
            print(error.code.value, error.request_id, error.exchange, error.retryable, error.attempts[0].lane)
        except FleetError as error:
            assert_type(error.retryable, bool)


def blocking() -> None:
    with FleetSync() as fleet:
        assert_type(fleet.fetch_ticker("BTC/USDT"), Ticker)
        assert_type(fleet.fetch_ticker("BTC/USDT", mode="all"), All[Ticker])
        assert_type(fleet.request("fetch_time"), Answer)
        for answer in fleet.map([Request("fetch_time")]):
            assert_type(answer, Answer)
        to_frame(fleet.fetch_ohlcv("BTC/USDT"))
"""
WRONG = """
from ccxt_fleet import FleetSync

fleet = FleetSync()
fleet.fetch_ticker("BTC/USDT", exchange="okx")
fleet.fetch_ticker(5)
fleet.fetch_balance()
fleet.fetch_ticker("BTC/USDT", strategy="fastest")
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return a virtual environment with what ours has, less ccxt, and with the package under its own name."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    (here,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (there,) = (Path(sys.prefix) / "lib").glob("python*/site-packages")
    for each in there.iterdir():
        if not each.name.lower().startswith(("ccxt", "__editable__")):
            (here / each.name).symlink_to(each)
    (here / "ccxt_fleet").symlink_to(ROOT / "schemas")
    (tmp_path / "right.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    return tmp_path


async def checked(*argv: str, cwd: Path) -> tuple[int | None, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *argv, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await child.communicate()
    return child.returncode, said.decode()


async def test_mypy(environment: Path) -> None:
    python = str(environment / "env" / "bin" / "python")
    strict = ("mypy", "--strict", "--config-file", "", "--python-executable", python)
    code, said = await checked(*strict, "right.py", cwd=environment)
    assert code == 0, said
    code, said = await checked(*strict, "wrong.py", cwd=environment)
    assert code == 1
    assert [f"wrong.py:{line}:" in said for line in (5, 6, 7, 8)] == [True] * 4, said


async def test_pyright(environment: Path) -> None:
    (environment / "pyrightconfig.json").write_text(
        '{"typeCheckingMode": "strict", "venvPath": ".", "venv": "env"}', encoding="utf-8"
    )
    code, said = await checked("pyright", "right.py", cwd=environment)
    assert code == 0, said
    code, said = await checked("pyright", "wrong.py", cwd=environment)
    assert code == 1
    assert [f"wrong.py:{line}:" in said for line in (5, 6, 7, 8)] == [True] * 4, said
