"""The private servers: they serve, come back from what the fault tests do to them, and leave nothing behind."""

import asyncio
import contextlib
import multiprocessing
import random
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import redis.asyncio as redis_client
from aio_pika import DeliveryMode, Message

from deploy.containers import Container
from deploy.processes import ProcessError, claimed_port, free_port
from deploy.servers import RabbitMQ, Redis

CHECKOUT = Path(__file__).parents[2]
PARENT = """
import asyncio, sys
from pathlib import Path
from deploy.servers import RabbitMQ, Redis

async def main():
    async with RabbitMQ(Path(sys.argv[1])), Redis(Path(sys.argv[1])):
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


PORTS = "from deploy.processes import free_port; print(*(free_port() for _ in range(300)))"
CLAIM = "import sys; from deploy.processes import claimed_port; print(claimed_port(int(sys.argv[1])))"


async def test_the_broker_serves_and_listens_on_loopback_alone(rabbitmq: RabbitMQ, vhost: str) -> None:
    async with await aio_pika.connect(vhost) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await channel.default_exchange.publish(Message(b"hello"), routing_key=queue.name)
        got = await queue.get(timeout=10)
        assert got is not None
        assert got.body == b"hello"
        await got.ack()
    listening = await rabbitmq.eval("[inet:sockname(P) || P <- erlang:ports(), {ok, _} <- [inet:sockname(P)]].")
    addresses = set(re.findall(r"\d+, ?\d+, ?\d+, ?\d+", listening))
    assert {address.replace(" ", "") for address in addresses} == {"127,0,0,1"}


async def kept(client: redis_client.Redis) -> list[bytes]:
    """What is in Redis beside the marks that it was in use for long."""
    keys: Any = await client.keys("*")
    return [key for key in keys if not key.endswith(b":met")]


async def test_redis_serves_and_starts_a_test_empty(redis_url: str) -> None:
    async with redis_client.from_url(redis_url) as client:
        assert await kept(client) == []
        await client.set("left", "behind")


async def test_redis_is_empty_again_for_the_next_test(redis_url: str) -> None:
    async with redis_client.from_url(redis_url) as client:
        assert await kept(client) == []


async def test_where_the_machine_has_no_redis_it_is_the_valkey_that_came_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "setpriv").symlink_to(str(shutil.which("setpriv")))
    monkeypatch.setenv("PATH", str(programs))
    async with Redis(tmp_path / "redis") as server, redis_client.from_url(server.url) as client:
        assert (await client.info("server"))["server_name"] == "valkey"


def test_a_port_is_claimed_once_and_only_while_nothing_listens_on_it() -> None:
    ports = random.sample(range(12_000, 15_000), k=100)  # not of those that `free_port` gives out
    wanted = next(port for port in ports if not is_taken(port))
    with socket.create_server(("127.0.0.1", wanted)):
        assert claimed_port(wanted) != wanted
    assert claimed_port(wanted) == wanted
    assert claimed_port(wanted) != wanted
    said = subprocess.run([sys.executable, "-c", CLAIM, str(wanted)], cwd=CHECKOUT, capture_output=True, check=True)
    assert int(said.stdout) != wanted


def test_no_process_gets_a_port_that_another_one_was_given() -> None:
    ours = [str(free_port()) for _ in range(300)]
    asked = [subprocess.Popen([sys.executable, "-c", PORTS], cwd=CHECKOUT, stdout=subprocess.PIPE) for _ in range(4)]
    theirs = [port for one in asked for port in one.communicate()[0].decode().split()]
    assert len(set(ours)) == 300
    assert not set(ours) & set(theirs)


def test_a_fork_gets_other_ports_than_its_parent() -> None:
    free_port()
    with multiprocessing.get_context("fork").Pool(1) as fork:
        theirs = fork.apply(_some)
    assert not theirs & _some()


def _some() -> set[int]:
    return {free_port() for _ in range(100)}


async def test_a_killed_broker_comes_back_with_its_port_and_messages(rabbitmq: RabbitMQ, vhost: str) -> None:
    async with await aio_pika.connect(vhost) as connection:
        channel = await connection.channel()
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        message = Message(b"hello", delivery_mode=DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key="kept")
        await rabbitmq.sync()
        rabbitmq.kill()
    assert not rabbitmq.running
    await rabbitmq.start()
    async with await aio_pika.connect(vhost) as connection:
        queue = await (await connection.channel()).get_queue("kept")
        got = await queue.get(timeout=10)
        assert got is not None
        assert got.body == b"hello"


async def test_a_frozen_server_answers_only_when_thawed(redis_server: Redis, redis_url: str) -> None:
    async with redis_client.from_url(redis_url) as client:
        redis_server.freeze()
        answer = asyncio.ensure_future(client.ping())
        done, _ = await asyncio.wait([answer], timeout=0.2)
        assert not done
        redis_server.thaw()
        assert await answer


async def test_a_restarted_redis_has_its_port_and_nothing_else(redis_server: Redis, redis_url: str) -> None:
    async with redis_client.from_url(redis_url) as client:
        await client.set("left", "behind")
    await redis_server.restart()
    async with redis_client.from_url(redis_url) as client:
        assert await client.dbsize() == 0


async def test_a_server_that_cannot_boot_says_why(tmp_path: Path) -> None:
    server = RabbitMQ(tmp_path)
    (tmp_path / "data").write_text("a file where the broker wants a folder")
    with pytest.raises(ProcessError, match=r"exit code \d+ before it served[\s\S]*rabbitmq\.log"):
        async with server:
            pass
    assert processes_of(tmp_path) == []


def test_a_missing_server_is_named_with_the_command_that_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Docker either
    with pytest.raises(ProcessError, match=r"no-such-server .*apt-get install no-such-server`"):
        Container("image", ["no-such-server"], env={}, ports=(1, 1), mount="/data", log=tmp_path / "log")


async def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"up\n"
    assert len(processes_of(tmp_path)) >= 3  # RabbitMQ, its port mapper and Redis
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(30):
        while processes_of(tmp_path):
            await asyncio.sleep(0.02)


def processes_of(folder: Path) -> list[int]:
    """Return the processes, zombies apart, whose HOME is this folder."""
    mine = f"HOME={folder}".encode()
    found: list[int] = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mine in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found
