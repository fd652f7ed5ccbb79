"""How much of what the exchanges allow arrives there, and what they refuse: ``--only door``.

Every endpoint of the demo's methods is asked for more than it allows, through the whole fleet with 1, 2, 4 and 8 worker
processes. Beside it plain ccxt programs ask for the same with ccxt's own limiter: one, and four that know nothing of
each other. The exchange counts. Binance and OKX have the machine for themselves, the slower four share it: two CPUs
don't carry all at once.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import msgspec
from msgspec import Struct

from deploy.simulator.process import Simulator
from schemas.runtime import modules

from .load import Door, Filled, next_minute, saturated, through, whole
from .measure import Options, Table, met
from .plain import Answered
from .stage import Servers

SECONDS: Final = 180.0
WORKERS: Final = (1, 2, 4, 8)
PROGRAMS: Final = (1, 4)
GROUPS: Final = (("binance",), ("okx",), ("htx", "coinbase", "kraken", "coinbaseexchange"))
WARM_UP_S: Final = 6.0


class Seen(Struct, frozen=True):
    """What one sender reached at one exchange.

    Args:
        per_minute: calls that brought data.
        violations: calls the exchange refused, those of the warm-up too.
        filled: how full the limits were.
    """

    per_minute: float
    violations: int
    filled: list[Filled]


async def run(options: Options) -> None:
    """Measures and prints."""
    seconds, counts = options.seconds or SECONDS, options.workers or WORKERS
    table = options.table(
        f"At the exchange's door, {seconds:.0f} s each after {WARM_UP_S:.0f} s (Binance: whole minutes)",
        *("exchange and limit", "of", "sent by", "used", "aim", "", "requests/min", "refused"),
    )
    best: dict[str, Seen] = {}
    plain: dict[tuple[str, int], Seen] = {}
    async with Servers.started() as servers:
        for group in GROUPS:
            exchanges = [name for name in group if name in (options.exchanges or group)]
            if not exchanges:
                continue
            for programs in PROGRAMS:
                for name, seen in (await _plain(exchanges, programs, seconds)).items():
                    _show(table, name, f"ccxt x {programs}", seen, aimed=False)
                    plain[name, programs] = seen
            for workers in counts:
                for name, seen in (await _fleet(servers, exchanges, workers, seconds)).items():
                    _show(table, name, f"{workers} worker{'s' * (workers > 1)}", seen, aimed=True)
                    if name not in best or seen.per_minute > best[name].per_minute:
                        best[name] = seen
    _compare(options, best, plain)


def _show(table: Table, exchange: str, sender: str, seen: Seen, *, aimed: bool) -> None:
    for limit in seen.filled:
        good = limit.used >= limit.aim and not seen.violations
        table.row(
            f"{exchange} {limit.bucket}",
            limit.limit,
            sender,
            f"{limit.used:.1%}",
            f"{limit.aim:.0%}" if aimed else "",
            met(good) if aimed else "",
            f"{seen.per_minute:,.0f}",
            str(seen.violations),
        )


def _compare(options: Options, best: dict[str, Seen], plain: dict[tuple[str, int], Seen]) -> None:
    table = options.table(
        "Requests answered a minute, beside plain ccxt",
        *("exchange", "fleet", "refused", "ccxt", "refused", "fleet/ccxt", "4 x ccxt", "refused", "fleet/4 x ccxt"),
    )

    def row(title: str, ours: Sequence[Seen], one: Sequence[Seen], four: Sequence[Seen]) -> None:
        rates = [sum(seen.per_minute for seen in each) for each in (ours, one, four)]
        refused = [str(sum(seen.violations for seen in each)) for each in (ours, one, four)]
        ratios = [f"{rates[0] / rate:.2f}" if rate else "" for rate in rates[1:]]
        cells = [f"{rate:,.0f}" for rate in rates]
        table.row(title, cells[0], refused[0], cells[1], refused[1], ratios[0], cells[2], refused[2], ratios[1])

    for name, seen in best.items():
        row(name, [seen], [plain[name, 1]], [plain[name, 4]])
    one, four = ([plain[name, programs] for name in best] for programs in PROGRAMS)
    row("all", list(best.values()), one, four)


async def _fleet(servers: Servers, exchanges: Sequence[str], workers: int, seconds: float) -> dict[str, Seen]:
    seconds = whole(seconds, exchanges)
    async with (
        servers.stage(exchanges, workers=workers) as stage,
        saturated(through(stage.client), exchanges) as tally,
    ):
        await asyncio.sleep(WARM_UP_S)
        await next_minute(exchanges)
        before, door = tally.answered.copy(), await Door.at(stage.simulator)
        await asyncio.sleep(seconds)
        answered = tally.answered - before
        return {name: await _seen(stage.simulator, door, name, answered[name] / seconds * 60) for name in exchanges}


async def _plain(exchanges: Sequence[str], programs: int, seconds: float) -> dict[str, Seen]:
    seconds = whole(seconds, exchanges)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(exchanges=list(exchanges)))
        urls = msgspec.json.encode(simulator.urls).decode()
        running: list[asyncio.subprocess.Process] = []
        for _ in range(programs):
            argv = (sys.executable, "-m", "tests.bench.plain", urls)
            pipe = asyncio.subprocess.PIPE
            program = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, cwd=modules.CHECKOUT)
            stack.push_async_callback(_end, program)
            running.append(program)
        for program in running:
            await _line(program)
        await asyncio.sleep(WARM_UP_S)
        await next_minute(exchanges)
        for program in running:
            _tell(program)
        door = await Door.at(simulator)
        await asyncio.sleep(seconds)
        for program in running:
            _tell(program)
        answers = [msgspec.json.decode(await _line(program), type=Answered) for program in running]
        found: dict[str, Seen] = {}
        for name in exchanges:
            per_minute = sum(each.answered.get(name, 0) for each in answers) / seconds * 60
            found[name] = await _seen(simulator, door, name, per_minute)
        return found


async def _seen(simulator: Simulator, door: Door, exchange: str, per_minute: float) -> Seen:
    violations = (await simulator.counters())["exchanges"][exchange]["violations"]
    return Seen(per_minute, violations, await door.filled(simulator, exchange))


def _tell(program: asyncio.subprocess.Process) -> None:
    assert program.stdin is not None
    program.stdin.write(b"count\n")


async def _line(program: asyncio.subprocess.Process) -> bytes:
    assert program.stdout is not None
    if not (line := await program.stdout.readline()):
        raise RuntimeError("the plain ccxt program ended by itself; its error is above")
    return line


async def _end(program: asyncio.subprocess.Process) -> None:
    if program.returncode is None:
        program.kill()
    await program.wait()
