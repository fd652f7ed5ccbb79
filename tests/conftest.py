"""Real servers for every test that asks: one RabbitMQ and one Redis a session, each test with a clean start."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio as redis_client

from deploy.servers import RabbitMQ, Redis

VHOSTS_AT_ONCE = 20
LOGS = pytest.StashKey[list[Path]]()

ADD_VHOSTS = """
lists:foreach(fun(N) ->
    Name = iolist_to_binary(["test", integer_to_list(N)]),
    rabbit_vhost:add(Name, <<"tests">>),
    rabbit_auth_backend_internal:set_permissions(<<"guest">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
end, lists:seq({first}, {last})).
"""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LOGS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    if exitstatus != 0:
        for folder in config.stash[LOGS]:
            terminalreporter.write_line(f"server logs: {folder}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rabbitmq(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[RabbitMQ]:
    """Yield the session's broker. A test that kills or freezes it need not mend it: the next one finds it running."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    pytestconfig.stash[LOGS].append(folder)
    async with RabbitMQ(folder) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[Redis]:
    """Yield the session's Redis; see `rabbitmq`."""
    folder = tmp_path_factory.mktemp("redis")
    pytestconfig.stash[LOGS].append(folder)
    async with Redis(folder) as server:
        yield server


@pytest.fixture(scope="session")
def vhost_numbers() -> Iterator[int]:
    """Return what numbers the session's virtual hosts."""
    return itertools.count()


@pytest.fixture
async def vhost(rabbitmq: RabbitMQ, vhost_numbers: Iterator[int]) -> str:
    """Return the URL of a virtual host that no other test has seen."""
    rabbitmq.thaw()
    await rabbitmq.start()
    number = next(vhost_numbers)
    if number % VHOSTS_AT_ONCE == 0:  # rabbitmqctl needs a second, a virtual host a few milliseconds
        await rabbitmq.ctl("eval", ADD_VHOSTS.format(first=number, last=number + VHOSTS_AT_ONCE - 1))
    return f"{rabbitmq.url}test{number}"


@pytest.fixture
async def redis_url(redis_server: Redis) -> str:
    """Return the URL of the session's Redis, emptied."""
    redis_server.thaw()
    await redis_server.start()
    async with redis_client.from_url(redis_server.url) as client:
        await client.flushall()
    return redis_server.url
