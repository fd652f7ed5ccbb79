"""Installs the programs, each in an environment of its own, and runs them; the words say which, all by default.

What they print is shown as it comes, and at the end what the simulated exchanges counted. It ends with 1 where one
fails, or one call too many was made.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import msgspec

from deploy.local import GatewayService, Services, simulated
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from schemas.runtime import modules
from tests.support.environments import built
from tests.support.fleet import opened

HERE: Final = Path(__file__).parent
# What is installed for each, beside the wheel; what asks the gateway needs no wheel.
PROGRAMS: Final[Mapping[str, Sequence[str]]] = {
    "freqtrade": ["freqtrade==2026.9"],
    "freqtrade-gateway": ["freqtrade==2026.9"],
    "ccxt-pandas": ["ccxt-pandas==0.15.0"],
    "vectorbt": ["vectorbt==1.2.0", "ccxt"],
}


class Failed(Exception):
    """A program ended with another exit code than it should."""


async def run(*words: str, cwd: Path, env: Mapping[str, str], ends_after_s: float = 0.0) -> None:
    """Runs a program until its end, or for so long, until SIGINT.

    Raises:
        Failed: its exit code is not 0, nor that of Ctrl-C where it had to be ended.
    """
    print("$", " ".join(Path(words[0]).name if word is words[0] else word for word in words), flush=True)
    child = await asyncio.create_subprocess_exec(
        *words, cwd=cwd, env=env, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    right = {0}
    if ends_after_s:
        done, _ = await asyncio.wait([asyncio.ensure_future(child.wait())], timeout=ends_after_s)
        if not done:
            child.send_signal(signal.SIGINT)
            right = {0, 130}
    if (code := await child.wait()) not in right:
        raise Failed(f"{words[0]} ended with {code}")


async def freqtrade(
    at: Path, folder: Path, env: Mapping[str, str], minutes: float, before: Sequence[str], more: Sequence[str]
) -> None:
    """Twenty pairs, 20 days each; then its dry run with the strategy that it brings.

    Args:
        at: where its commands are.
        folder: where its data go.
        env: its environment.
        minutes: how long the dry run takes.
        before: the words before its own ones.
        more: words about further configuration.
    """
    await run(str(at / "freqtrade"), "create-userdir", "--userdir", "user_data", cwd=folder, env=env)
    words = (*before, str(at / "freqtrade"))
    common = ("--userdir", "user_data", "--config", str(HERE / "freqtrade.json"), *more)
    await run(*words, "download-data", *common, "--timeframes", "5m", "1h", "--days", "20", cwd=folder, env=env)
    await run(*words, "trade", *common, "--strategy", "SampleStrategy", cwd=folder, env=env, ends_after_s=60 * minutes)


async def leads(gateway: GatewayService, folder: Path) -> Path:
    """A file of freqtrade's configuration as ``gateway config binance`` prints it."""
    words = modules.command("schemas", "gateway", "config", "binance", "--gateway", gateway.url, "--json")
    child = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    said, _ = await child.communicate()
    path = folder / "gateway.json"
    path.write_bytes(msgspec.json.encode({"exchange": msgspec.json.decode(said)["freqtrade"]}))
    return path


async def program(
    name: str, folder: Path, wheel: Path, env: Mapping[str, str], minutes: float, gateway: GatewayService
) -> None:
    """Installs one and runs it."""
    venv.create(folder / "env", with_pip=True)
    at = folder / "env" / "bin"
    ours = [] if name == "freqtrade-gateway" else [str(wheel)]
    await run(str(at / "pip"), "install", "--quiet", *ours, *PROGRAMS[name], cwd=folder, env=env)
    if name == "freqtrade":
        await freqtrade(at, folder, env, minutes, (str(at / "ccxt-fleet"), "run", "--"), ())
    elif name == "freqtrade-gateway":
        await freqtrade(at, folder, env, minutes, (), ("--config", str(await leads(gateway, folder))))
    elif name == "ccxt-pandas":
        await run(str(at / "python"), str(HERE / "uses_ccxt_pandas.py"), cwd=folder, env=env)
    else:
        script = str(HERE / "uses_vectorbt.py")
        await run(str(at / "python"), script, cwd=folder, env=env)
        await run(str(at / "ccxt-fleet"), "run", "--", str(at / "python"), script, "by-name", cwd=folder, env=env)


async def main(names: Sequence[str], minutes: float) -> int:
    """Runs a fleet on the simulator, and the programs one after the other."""
    wrong = 0
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="programs-")))
        wheel = built(folder)
        rabbitmq = await stack.enter_async_context(RabbitMQ(folder / "rabbitmq"))
        redis = await stack.enter_async_context(Redis(folder / "redis"))
        simulator = await stack.enter_async_context(Simulator())
        config = simulated(simulator.urls)
        fleet = Services(folder, config, broker_url=rabbitmq.url, redis_url=redis.url)
        await stack.enter_async_context(fleet)
        await opened(fleet)
        gateway = await fleet.add_gateway()
        env = {**os.environ, "FLEET_BROKER_URL": rabbitmq.url}
        for name in names:
            (folder / name).mkdir()
            try:
                await program(name, folder / name, wheel, env, minutes, gateway)
            except Failed as error:
                print(error, file=sys.stderr)
                wrong = 1
        counted = await simulator.counters()
        for name, each in counted["exchanges"].items():
            print(f"{name}: {each['requests']} calls, {each['violations']} too many")
    return 1 if counted["violations"] else wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.programs", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*PROGRAMS, []], metavar="program", help=", ".join(PROGRAMS))
    parser.add_argument("--minutes", type=float, default=5, help="how long freqtrade's dry run is")
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.names or list(PROGRAMS), options.minutes)))
