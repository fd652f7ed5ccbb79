"""RabbitMQ and Redis over TLS, with an authority made for the test: trusted where it is named, refused where not."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.authority import Authority
from deploy.processes import Process, free_port
from deploy.servers import REDIS_PROGRAMS, RabbitMQ, find_program
from schemas import topology
from schemas.config import BrokerConfig
from schemas.errors import FleetError
from schemas.runtime import store
from schemas.runtime.broker import Broker
from schemas.runtime.deliveries import Delivery
from tests.support.fleet import wait_until


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with an authority (ca.pem) and a server's certificate for 127.0.0.1 (server.pem, server.key)."""
    Authority(tmp_path).certify("server", "127.0.0.1")
    return tmp_path


@pytest.fixture
async def tls_port(keys: Path, tmp_path: Path) -> AsyncIterator[int]:
    """The port on which a RabbitMQ of its own speaks TLS."""
    folder, port = tmp_path / "rabbitmq", free_port()
    folder.mkdir()
    (folder / "rabbitmq.conf").write_text(
        f"listeners.ssl.1 = 127.0.0.1:{port}\n"
        f"ssl_options.cacertfile = {keys / 'ca.pem'}\n"
        f"ssl_options.certfile = {keys / 'server.pem'}\n"
        f"ssl_options.keyfile = {keys / 'server.key'}\n"
    )
    async with RabbitMQ(folder):
        yield port


async def test_amqp_over_tls(keys: Path, tls_port: int) -> None:
    taken: list[bytes] = []

    async def take(delivery: Delivery) -> None:
        taken.append(delivery.body)
        await delivery.ack()

    url = f"amqps://guest:guest@127.0.0.1:{tls_port}/"
    broker = Broker(BrokerConfig(urls=(f"{url}?cafile={keys / 'ca.pem'}",)), "test", [])
    await broker.start()
    await broker.subscribe(topology.RETURNED, take, prefetch=1)
    await broker.publish(b"secret", topology.RETURNED)
    await wait_until(lambda: taken == [b"secret"], "the message")
    await broker.close()
    stranger = Broker(BrokerConfig(urls=(url,), timeout_s=2, patience_s=0.1), "test", [])
    with pytest.raises(FleetError, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
        await stranger.start()
    await stranger.close()


async def test_redis_over_tls(keys: Path) -> None:
    program = find_program(*REDIS_PROGRAMS)
    assert program is not None, "install redis-server"
    port = free_port()
    words = ["--port", "0", "--bind", "127.0.0.1", "--tls-port", str(port), "--tls-auth-clients", "no", "--save", ""]
    files = {"tls-cert-file": "server.pem", "tls-key-file": "server.key", "tls-ca-cert-file": "ca.pem"}
    for option, name in files.items():
        words += [f"--{option}", str(keys / name)]
    server = Process([str(program), *words], log=keys / "redis.log", env=dict(os.environ), cwd=keys)
    server.start()
    try:
        await wait_until(lambda: "Ready to accept" in server.tail(), "Redis serves")
        url = f"rediss://127.0.0.1:{port}/0"
        client = store.connect(f"{url}?ssl_ca_certs={keys / 'ca.pem'}", timeout_s=5)
        assert await client.set("key", "secret")
        await client.aclose()
        stranger = store.connect(url, timeout_s=5)
        with pytest.raises(store.AWAY, match="certificate verify failed"):
            await stranger.set("key", "secret")
        await stranger.aclose()
    finally:
        server.kill()
