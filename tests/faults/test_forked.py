"""Eight workers that one parent forks: within every limit, and nothing is lost whichever of them ends, and how."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.local import Service, Services, simulated
from deploy.processes import free_port
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.process import Simulator
from tests.conftest import new_vhost
from tests.faults.load import Load
from tests.support.fleet import QUICK, wait_until
from tests.support.forked import all_opened, children, files, pids, tcp_sockets, there, threads

COUNT = 8
REQUESTS = 240
BEFORE = 60
EXCHANGES = ("binance", "okx", "kraken")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def forked(
    rabbitmq: RabbitMQ, vhost_numbers: Iterator[int], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Simulator, Services]]:
    """Yield a dispatcher and eight workers of one parent on a simulator, and their broker's URL first."""
    folder = tmp_path_factory.mktemp("forked")
    url = await new_vhost(rabbitmq, vhost_numbers)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(folder / "redis"))
        simulator = await stack.enter_async_context(Simulator(exchanges=list(EXCHANGES)))
        fleet = await stack.enter_async_context(
            Services(
                folder,
                {**simulated(simulator.urls), **QUICK},
                broker_url=url,
                redis_url=redis.url,
                workers=1,
                processes=COUNT,
            )
        )
        yield url, simulator, fleet


@pytest.fixture
async def fleet(forked: tuple[str, Simulator, Services]) -> AsyncIterator[Services]:
    """Yield it with all of its processes there; whatever a test does, no limit is broken."""
    _, simulator, fleet = forked
    fleet.workers[0].start()
    await all_opened(fleet, fleet.workers[0], COUNT)
    yield fleet
    assert not (await simulator.counters())["violations"]


@pytest.fixture
async def load(forked: tuple[str, Simulator, Services], fleet: Services) -> AsyncIterator[Load]:
    async with Load.on(forked[0], fleet.lanes) as load:
        yield load


async def test_all_eight_work_and_no_limit_is_broken(fleet: Services, load: Load) -> None:
    (worker,) = fleet.workers
    await load.run(REQUESTS)
    assert not load.errors, load.errors[:3]
    seen = await worker.metrics()
    counted = {key[1]: value for key, value in seen.items() if key[0] == "fleet_attempts_total" and value}
    assert set(counted) == {str(number) for number in range(1, COUNT + 1)}
    status = await worker.status()
    names = {each["status"]["process"]["name"] for each in status["workers"]}
    assert len(names) == COUNT
    assert {each["pid"] for each in status["workers"]} < set(children(worker.pid))


async def test_the_parent_shares_no_loop_thread_or_connection(fleet: Services) -> None:
    (worker,) = fleet.workers
    assert threads(worker.pid) == 1
    held = files(worker.pid)
    assert not [each for each in held if "eventpoll" in each or "timerfd" in each]
    assert {each.removeprefix("socket:[").removesuffix("]") for each in held}.isdisjoint(tcp_sockets())


async def test_a_killed_process_loses_nothing_and_comes_back(fleet: Services, load: Load) -> None:
    (worker,) = fleet.workers
    running = asyncio.create_task(load.run(REQUESTS))
    await load.answered(BEFORE)
    before = await pids(worker)
    os.kill(before[3], signal.SIGKILL)
    await running
    assert not load.errors, load.errors[:3]

    async def back() -> bool:
        return (await pids(worker)).get(3, before[3]) != before[3]

    await wait_until(back, "another process has its place")
    await all_opened(fleet, worker, COUNT)
    now = await pids(worker)
    assert {number: pid for number, pid in now.items() if number != 3} == {
        number: pid for number, pid in before.items() if number != 3
    }
    said = worker.log.read_text()
    assert "process_ended of=3 how='by SIGKILL' again_in_s=0.5" in said
    assert any(line.endswith(" process=3") for line in said.splitlines())
    assert (await worker.metrics())["fleet_worker_process_starts_total", "3"] == 2
    assert (await worker.ask("healthz"))[0] == 200


async def test_one_that_hangs_is_killed_and_loses_nothing(fleet: Services, load: Load) -> None:
    """It answers no signal but SIGKILL, holds what it was given, and its port says that it is ill meanwhile."""
    (worker,) = fleet.workers
    running = asyncio.create_task(load.run(REQUESTS))
    await load.answered(BEFORE)
    before = await pids(worker)
    os.kill(before[2], signal.SIGSTOP)

    async def ill() -> bool:
        return (await worker.ask("healthz"))[0] == 503

    async def back() -> bool:
        return (await pids(worker)).get(2, before[2]) != before[2]

    await wait_until(ill, "its port says so")
    await wait_until(back, "another process has its place", timeout_s=120)
    await running
    assert not load.errors, load.errors[:3]
    await all_opened(fleet, worker, COUNT)
    said = worker.log.read_text()
    assert "process_hung of=2 silent_s=30.0" in said
    assert said.count("process_hung") == 1


async def test_the_port_comes_back(fleet: Services) -> None:
    (worker,) = fleet.workers
    (port,) = set(children(worker.pid)) - set((await pids(worker)).values())
    os.kill(port, signal.SIGKILL)
    await wait_until(lambda: not there(port), "it has ended")

    async def back() -> bool:
        return (await worker.ask("readyz"))[0] == 200

    await wait_until(back, "the port serves again")
    assert "process_ended of=port" in worker.log.read_text()


async def test_a_process_that_ends_again_and_again_is_said_to_be_ill(fleet: Services) -> None:
    (worker,) = fleet.workers
    killed = set[int]()

    async def ill() -> bool:
        pid = (await pids(worker)).get(5)
        if pid and pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        status, said = await worker.ask("healthz")
        return status == 503 and "process 5: ended 3 times in a row, last by SIGKILL" in said

    await wait_until(ill, "its port says so")
    assert " ERROR " in next(line for line in worker.log.read_text().splitlines() if "again_in_s=2.0" in line)
    await all_opened(fleet, worker, COUNT)


async def test_sighup_is_for_all_of_them(fleet: Services) -> None:
    (worker,) = fleet.workers
    text = fleet.config_file.read_text()
    before = worker.log.read_text().count("configuration_loaded")
    try:
        fleet.config_file.write_text(f"{text}\n# the same in other words\n")
        worker.send(signal.SIGHUP)
        await wait_until(
            lambda: worker.log.read_text().count("configuration_loaded") - before >= COUNT, "all have read it"
        )
        versions = {
            each["status"]["process"]["configuration"]["version"] for each in (await worker.status())["workers"]
        }
        assert len(versions) == 1
    finally:
        fleet.config_file.write_text(text)


async def drained(worker: Service, load: Load, stop: signal.Signals, fleet: Services) -> list[int]:
    """Stops the worker under load; another one takes over. Returns the processes that were there."""
    running = asyncio.create_task(load.run(REQUESTS))
    await load.answered(BEFORE)
    other = fleet.add_worker()
    there_were = children(worker.pid)
    try:
        os.kill(worker.pid, stop)
        await worker.wait(timeout_s=40)
        await running
        assert not load.errors, load.errors[:3]
        await wait_until(lambda: not any(map(there, there_were)), "all processes have ended")
    finally:
        fleet.workers.remove(other)
        await other.stop(grace_s=20)
    return there_were


async def test_sigterm_ends_all_in_order(fleet: Services, load: Load) -> None:
    (worker,) = fleet.workers
    await drained(worker, load, signal.SIGTERM, fleet)
    assert worker.exit_code == 0, worker.tail()
    assert worker.log.read_text().count("worker_left") >= COUNT


async def test_when_the_parent_is_killed_all_end_in_order(fleet: Services, load: Load) -> None:
    (worker,) = fleet.workers
    before = worker.log.read_text()
    await drained(worker, load, signal.SIGKILL, fleet)
    said = worker.log.read_text()[len(before) :]
    assert said.count("parent_gone") >= COUNT
    assert said.count("worker_left") == COUNT
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(("127.0.0.1", worker.metrics_port))


async def test_a_signal_for_all_processes_is_one_signal(fleet: Services) -> None:
    """As Ctrl-C and systemd send it: the parent's word must not count as a second one."""
    (worker,) = fleet.workers
    before = worker.log.read_text()
    os.killpg(worker.pid, signal.SIGTERM)
    await worker.wait(timeout_s=40)
    assert worker.exit_code == 0, worker.tail()
    assert "forced_exit" not in worker.log.read_text()[len(before) :]


async def test_a_second_signal_ends_all_at_once(fleet: Services) -> None:
    (worker,) = fleet.workers
    there_were = children(worker.pid)
    for pid in there_were:
        os.kill(pid, signal.SIGSTOP)
    before = worker.log.read_text()
    worker.send(signal.SIGTERM)
    await wait_until(lambda: "parent_stopping" in worker.log.read_text()[len(before) :], "it stops")
    worker.send(signal.SIGTERM)
    await worker.wait(timeout_s=20)
    assert worker.exit_code == 3, worker.tail()
    await wait_until(lambda: not any(map(there, there_were)), "all processes have ended")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[lanes.okx]\nweight = 'heavy'\n", "fleet.toml: lanes.okx.weight: "),
        ("[lanes.mtgox]\n", "workers: lanes.mtgox.exchange: expected an exchange id of ccxt, not 'mtgox'"),
    ],
)
async def test_what_no_start_could_mend_ends_it(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    code, said = await ended(tmp_path, file)
    assert code == 1, said
    assert says in said
    assert "Traceback" not in said


async def test_a_port_that_is_taken_ends_it(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(f"[broker]\nurls = ['amqp://127.0.0.1:{free_port()}/']\n[lanes.okx]\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = await ended(tmp_path, file, "--metrics-port", str(taken.getsockname()[1]))
    assert code == 1, said
    assert "can't listen on 127.0.0.1" in said


async def ended(folder: Path, file: Path, *words: str) -> tuple[int, str]:
    """How a parent of three ended, and what it and they said."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workers", "--config", str(file), "--processes", "3", *words),
        cwd=Path(__file__).parents[2],
        env={},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await child.communicate()
    return child.returncode or 0, said.decode()
