"""Real servers for the tests: one RabbitMQ and one Redis a session, each test with a clean start."""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import pytest_asyncio
import redis.asyncio as redis_client
from hypothesis import settings

from deploy.local import Services, simulated
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.limits import LIMITS
from deploy.simulator.process import Simulator
from schemas import topology
from tests.support.broker import port_of
from tests.support.fleet import QUICK, Client, Heard, Stand, opened
from tests.support.stores import STORES, known_here
from tests.support.tcp_proxy import Proxy

LOGS = pytest.StashKey[list[Path]]()
# Ten times as many examples of every property: `--hypothesis-profile=long`.
settings.register_profile("long", max_examples=10 * settings().max_examples)

ADD_VHOST = """
rabbit_vhost:add(<<"{name}">>, <<"tests">>),
rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>).
"""
# Its queues would tick on for the rest of the session. A queue that lost its leader with the broker may not go.
DELETE_VHOST = 'catch rabbit_vhost:delete(<<"{name}">>, <<"tests">>).'


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LOGS] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--alone", choices=("only", "not"), help="those that are marked `alone`, or all others")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files without a test that runs alone are not even read where only those run."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    if is_test and config.getoption("--alone") == "only" and b"mark.alone" not in collection_path.read_bytes():
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if part := config.getoption("--alone"):
        parts: dict[str, list[pytest.Item]] = {"only": [], "not": []}
        for item in items:
            parts["only" if item.get_closest_marker("alone") else "not"].append(item)
        items[:] = parts[part]
        config.hook.pytest_deselected(items=parts["not" if part == "only" else "only"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "redis_server" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_stores"):
        metafunc.parametrize("redis_server", STORES, indirect=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With pytest-xdist, tell the process that prints the summary where this one's logs are."""
    said = getattr(session.config, "workeroutput", {})
    said["logs"] = [str(folder) for folder in session.config.stash[LOGS]]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take in the log folders of a finished pytest-xdist process; a crashed one sends none."""
    node.config.stash[LOGS] += [Path(folder) for folder in getattr(node, "workeroutput", {}).get("logs", [])]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    if exitstatus != 0:
        for folder in config.stash[LOGS]:
            terminalreporter.write_line(f"server logs: {folder}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rabbitmq(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[RabbitMQ]:
    """Yield the session's broker. A test may leave it killed or frozen: the next one finds it running."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    pytestconfig.stash[LOGS].append(folder)
    async with RabbitMQ(folder) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, request: pytest.FixtureRequest
) -> AsyncIterator[Redis]:
    """Yield the session's Redis, or Valkey where a test runs on both; see `rabbitmq`."""
    folder = tmp_path_factory.mktemp("redis")
    pytestconfig.stash[LOGS].append(folder)
    async with Redis(folder, STORES[getattr(request, "param", "redis")]) as server:
        yield server


@pytest.fixture(scope="session")
def vhost_numbers() -> Iterator[int]:
    """Return what numbers the session's virtual hosts."""
    return itertools.count()


async def new_vhost(rabbitmq: RabbitMQ, numbers: Iterator[int]) -> str:
    rabbitmq.thaw()
    await rabbitmq.start()
    name = f"test{next(numbers)}"
    await rabbitmq.eval(ADD_VHOST.format(name=name))
    return f"{rabbitmq.url}{name}"


@pytest.fixture
async def vhost(rabbitmq: RabbitMQ, vhost_numbers: Iterator[int]) -> AsyncIterator[str]:
    """Yield the URL of a virtual host that no other test has seen."""
    url = await new_vhost(rabbitmq, vhost_numbers)
    yield url
    rabbitmq.thaw()
    await rabbitmq.start()
    await rabbitmq.eval(DELETE_VHOST.format(name=url.rpartition("/")[2]))


@pytest.fixture
async def proxy(vhost: str) -> AsyncIterator[Proxy]:
    """Yield a proxy before the session's broker."""
    async with Proxy.before(port_of(vhost)) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: Proxy, vhost: str) -> str:
    """Return the virtual host's URL through the proxy."""
    head, _, tail = vhost.rpartition(":")
    return f"{head}:{proxy.port}/{tail.partition('/')[2]}"


@pytest.fixture
async def admin(vhost: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """Yield a channel of the test's own in the virtual host."""
    async with await aio_pika.connect(vhost) as connection:
        yield await connection.channel()


@pytest.fixture
async def redis_url(redis_server: Redis) -> str:
    """Return the URL of the session's Redis, emptied of keys and functions, but as if it was in use for long."""
    redis_server.thaw()
    await redis_server.start()
    async with redis_client.from_url(redis_server.url) as client:
        await client.flushall()
        await client.function_flush("SYNC")  # A test before may have left one with a clock of its own.
        await known_here(client, *LIMITS, "x")
    return redis_server.url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_fleet(
    rabbitmq: RabbitMQ,
    vhost_numbers: Iterator[int],
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> AsyncIterator[tuple[str, Redis, Simulator, Services]]:
    """Yield a dispatcher and two workers on a simulator, with a Redis of their own, and their broker's URL first."""
    folder = tmp_path_factory.mktemp("fleet")
    pytestconfig.stash[LOGS].append(folder)
    url = await new_vhost(rabbitmq, vhost_numbers)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(folder / "redis"))
        simulator = await stack.enter_async_context(Simulator())
        config = {**simulated(simulator.urls), **QUICK}
        fleet = await stack.enter_async_context(Services(folder, config, broker_url=url, redis_url=redis.url))
        await opened(fleet)
        yield url, redis, simulator, fleet
        await fleet.stop()
        assert [service.exit_code for service in (*fleet.dispatchers, *fleet.workers)] == [0, 0, 0]


@pytest.fixture
async def stand(rabbitmq: RabbitMQ, shared_fleet: tuple[str, Redis, Simulator, Services]) -> AsyncIterator[Stand]:
    """Yield the session's fleet, healthy, with a client of the test's own. Whatever a test does, no limit is broken."""
    url, redis, simulator, fleet = shared_fleet
    rabbitmq.thaw()
    await rabbitmq.start()
    async with Client.on(url) as client:
        stand = Stand(rabbitmq, url, redis, simulator, fleet, client)
        await stand.heal()
        yield stand
        violations, broken = await stand.violations(), await stand.broken()
        if violations:
            await simulator.reset()
        assert not violations, broken


@pytest.fixture
async def heard(stand: Stand) -> AsyncIterator[Heard]:
    """Return what the fleet's workers report from now on."""
    heard = Heard()
    queue = await stand.client.channel.declare_queue(exclusive=True)
    await queue.bind(topology.REPORTS)
    tag = await queue.consume(heard.take, no_ack=True)
    yield heard
    await queue.cancel(tag)
