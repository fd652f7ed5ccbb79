"""`ccxt-fleet run`: a program's ccxt goes through the fleet, in its child processes too, and nothing else changes."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from schemas.runtime import modules
from tests.support.commands import ROOT, Done
from tests.support.environments import Environment, built
from tests.support.fleet import Stand

# In the shape of programs that have ccxt inside: a console script's module that makes the class from its name.
BOT = """
import sys
import time
import mybot.exchange

def main():
    print(sys.argv[1:], mybot.exchange.last(sys.argv[1]))
"""
EXCHANGE = """
import asyncio
import ccxt
import ccxt.async_support
import ccxt.pro

def last(name):
    blocking = getattr(ccxt, name)({"enableRateLimit": True})

    async def ask():
        found = []
        for module in (ccxt.async_support, ccxt.pro):
            exchange = getattr(module, name)()
            found.append((await exchange.fetch_ticker("BTC/USDT"))["symbol"])
            await exchange.close()
        return found

    return [blocking.fetch_ticker("BTC/USDT")["symbol"], *asyncio.run(ask())]
"""
CHILDREN = """
import multiprocessing, subprocess, sys
from mybot.exchange import last

if __name__ == "__main__":
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, pool.map(last, ["kraken"]))
    argv = [sys.executable, "-c", "import mybot; mybot.main()", "kraken"]
    print(subprocess.run(argv, capture_output=True, text=True).stdout)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a program in it."""
    (tmp_path / "mybot").mkdir()
    (tmp_path / "mybot" / "__init__.py").write_text(BOT)
    (tmp_path / "mybot" / "__main__.py").write_text("import mybot; mybot.main()")
    (tmp_path / "mybot" / "exchange.py").write_text(EXCHANGE)
    (tmp_path / "script.py").write_text("import mybot; mybot.main()")
    (tmp_path / "children.py").write_text(CHILDREN)
    console = tmp_path / "bot"
    console.write_text(
        f"#!{sys.executable}\nimport sys; sys.path.insert(0, {str(tmp_path)!r})\nimport mybot; mybot.main()\n"
    )
    console.chmod(0o755)
    return tmp_path


async def started(*words: str, cwd: Path, env: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
    """Starts `ccxt-fleet run` as a user would, in another folder than the checkout."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from schemas.__main__ import main; main()", "run", *words),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(*words: str, cwd: Path, env: Mapping[str, str] | None = None) -> Done:
    """Runs it until it ends."""
    child = await started(*words, cwd=cwd, env=env)
    try:
        async with asyncio.timeout(120):
            out, err = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode is not None
    return Done(child.returncode, out.decode(), err.decode())


@pytest.mark.parametrize(
    "words", [["script.py"], [sys.executable, "-m", "mybot"], ["./bot"]], ids=lambda words: words[-1]
)
async def test_a_program_s_ccxt_goes_through_the_fleet(stand: Stand, folder: Path, words: list[str]) -> None:
    done = await run("--url", stand.url, "--", *words, "kraken", "--url", "-x", cwd=folder)
    assert done == Done(0, "['kraken', '--url', '-x'] ['BTC/USDT', 'BTC/USDT', 'BTC/USDT']\n", "")


async def test_so_does_that_of_its_children(stand: Stand, folder: Path) -> None:
    done = await run("children.py", cwd=folder, env={"FLEET_BROKER_URL": stand.url})
    assert (done.code, done.err) == (0, "")
    assert done.out.count("['BTC/USDT', 'BTC/USDT', 'BTC/USDT']") == 3


async def test_signals_and_exit_codes_are_the_program_s(folder: Path) -> None:
    (folder / "ends.py").write_text("import sys; sys.exit(7)")
    assert (await run("ends.py", cwd=folder)).code == 7
    (folder / "waits.py").write_text(
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        "print('ready', flush=True)\nsignal.pause()\n"
    )
    child = await started("waits.py", cwd=folder)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    child.terminate()
    assert await child.wait() == 9


async def test_what_can_t_be_started_is_said(folder: Path) -> None:
    assert await run("--", "no-such-bot", cwd=folder) == Done(
        127, "", "ccxt-fleet run: no program 'no-such-bot' is found\n"
    )
    done = await run("./mybot", cwd=folder)
    assert (done.code, done.out) == (126, "")
    assert "'./mybot' can't be run" in done.err
    done = await run(cwd=folder)
    assert done.code == 2
    assert "which program?" in done.err


async def test_the_environment_s_own_customization_is_run(folder: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text("import builtins; builtins.custom = __name__")
    (folder / "says.py").write_text("import sys, sitecustomize; print(custom, sitecustomize.__file__)")
    done = await run("says.py", cwd=folder, env={"PYTHONPATH": f"{ROOT}{os.pathsep}{folder / 'site'}"})
    assert done == Done(0, f"sitecustomize {folder / 'site' / 'sitecustomize.py'}\n", "")


def test_an_environment_without_ccxt_fleet_says_so_and_calls_nobody(folder: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "other", symlinks=True)
    [packages] = (tmp_path / "other").glob("lib/python*/site-packages")
    (packages / "ccxt" / "base").mkdir(parents=True)
    (packages / "ccxt" / "__init__.py").write_text("from ccxt.base.exchange import Exchange")
    (packages / "ccxt" / "base" / "exchange.py").write_text("class Exchange: synchronous = True")
    python = str(tmp_path / "other" / "bin" / "python")
    hooked = {"PYTHONPATH": str(modules.HOOK), "CCXT_FLEET_HOOK": "ccxt_fleet.workers.dropin.hook"}
    argv = [python, "-c", "print('up'); import ccxt"]
    done = subprocess.run(argv, cwd=folder, env=hooked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "up\n")
    assert re.search(
        r"ImportError: ccxt-fleet run: .*other/bin/python can't import ccxt_fleet\S* \(.*pip install", done.stderr
    )


async def test_with_the_wheel_it_needs_the_client_and_ccxt_alone(
    stand: Stand, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = Environment(tmp_path_factory.mktemp("bot"), built(tmp_path_factory.mktemp("wheel")), also=["ccxt"])
    done = environment.run(
        "ccxt-fleet", "run", "--", "script.py", "kraken", cwd=folder, env={"FLEET_BROKER_URL": stand.url}
    )
    assert done == "['kraken'] ['BTC/USDT', 'BTC/USDT', 'BTC/USDT']\n"
    said = environment.run(
        "python",
        *("-c", "import ccxt_fleet.ccxt as a, ccxt_fleet.ccxt_async as b; print(a.okx.__name__, b.Exchange.__name__)"),
        cwd=folder,
    )
    assert said == "okx Exchange\n"
    assert "pip install 'ccxt-fleet[services]'" in environment.run("python", "-c", PRIVATE, cwd=folder)


PRIVATE = """
import ccxt_fleet.ccxt as ccxt
okx = ccxt.okx({"apiKey": "a", "secret": "b", "password": "c", "fleet": {"private": "direct"}})
try:
    okx.private_get_account_balance()
except Exception as error:
    print(error)
"""
