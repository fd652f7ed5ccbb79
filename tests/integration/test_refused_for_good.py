"""What no retry mends is reported at once, with what to change: certificates, files, protocols, names, passwords.

`patience_s` is an hour in all of these: a test that ends has not waited for it.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from deploy.authority import Authority
from deploy.processes import Process, free_port
from deploy.servers import REDIS_PROGRAMS, RabbitMQ, find_program
from schemas.config import BrokerConfig
from schemas.errors import BrokerLost, ConfigError
from schemas.runtime import store
from schemas.runtime.broker import Broker
from tests.support.fleet import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOUR_S = 3600.0
USERS = """
[begin
    rabbit_auth_backend_internal:add_user(Name, <<"s3cr3t">>, <<"tests">>),
    rabbit_auth_backend_internal:set_permissions(Name, <<"/">>, Configure, <<".*">>, <<".*">>, <<"tests">>)
end || {Name, Configure} <- [{<<"reader">>, <<"^$">>}, {<<"crowded">>, <<".*">>}]],
rabbit_auth_backend_internal:add_user(<<"stranger">>, <<"s3cr3t">>, <<"tests">>).
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def places(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    """Yield ports of a RabbitMQ and a Redis, with TLS and without, and files."""
    folder = tmp_path_factory.mktemp("refused")
    Authority(folder).certify("server", "127.0.0.1")
    (folder / "empty.pem").write_text("no certificate\n")
    rabbitmq_tls, redis, redis_tls = free_port(), free_port(), free_port()
    (folder / "rabbitmq").mkdir()
    (folder / "rabbitmq" / "rabbitmq.conf").write_text(
        f"listeners.ssl.1 = 127.0.0.1:{rabbitmq_tls}\n"
        f"ssl_options.cacertfile = {folder / 'ca.pem'}\n"
        f"ssl_options.certfile = {folder / 'server.pem'}\n"
        f"ssl_options.keyfile = {folder / 'server.key'}\n"
    )
    program = find_program(*REDIS_PROGRAMS)
    assert program is not None, "install redis-server"
    words = ["--port", str(redis), "--bind", "127.0.0.1", "--tls-port", str(redis_tls), "--tls-auth-clients", "no"]
    words += ["--save", "", "--requirepass", "s3cr3t", "--tls-ca-cert-file", str(folder / "ca.pem")]
    words += ["--tls-cert-file", str(folder / "server.pem"), "--tls-key-file", str(folder / "server.key")]
    server = Process([str(program), *words], log=folder / "redis.log", env=dict(os.environ), cwd=folder)
    async with AsyncExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        rabbitmq = await stack.enter_async_context(RabbitMQ(folder / "rabbitmq"))
        await rabbitmq.eval(USERS)
        await rabbitmq.ctl("set_user_limits", "crowded", '{"max-connections": 0}')
        await wait_until(lambda: "Ready to accept" in server.tail(), "Redis serves")
        ports = {"mq": rabbitmq.port, "mqs": rabbitmq_tls, "redis": redis, "rediss": redis_tls}
        files = {"ca": folder / "ca.pem", "empty": folder / "empty.pem", "gone": folder / "gone.pem"}
        yield {name: str(value) for name, value in {**ports, **files, "nobody": free_port()}.items()}


def broker(*urls: str, patience_s: float = HOUR_S) -> Broker:
    return Broker(BrokerConfig(urls=urls, timeout_s=5, patience_s=patience_s), "test", [])


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("amqps://127.0.0.1:{mqs}/", "self-signed certificate in certificate chain: name its authority's file"),
        ("amqps://localhost:{mqs}/?cafile={ca}", "Hostname mismatch.*: its subjectAltName has to hold the host"),
        ("amqps://127.0.0.1:{mqs}/?cafile={gone}", "can't read cafile=.*gone.pem"),
        ("amqps://127.0.0.1:{mqs}/?cafile={ca}&certfile={gone}", "can't read certfile=.*gone.pem"),
        ("amqps://127.0.0.1:{mqs}/?cafile={empty}", "TLS: .*cafile=.*empty.pem PEM files"),
        ("amqps://127.0.0.1:{mqs}/?cafile={ca}&certfile={empty}", "TLS: .*certfile=.*empty.pem PEM files"),
        ("amqps://127.0.0.1:{mq}/?cafile={ca}", "it speaks no TLS on this port: amqp://"),
        ("amqp://127.0.0.1:{mqs}/", "it speaks TLS on this port: amqps://"),
        ("amqp://guest:wr0ng@127.0.0.1:{mq}/", "it refuses our user or password"),
        ("amqp://guest:wr0ng@127.0.0.1:{mq}/?auth=amqplain", "it takes no password"),
        ("amqp://127.0.0.1:{mq}/elsewhere", "vhost elsewhere not found: is /elsewhere the virtual host"),
        ("amqp://stranger:s3cr3t@127.0.0.1:{mq}/", "access to vhost '/' refused for user 'stranger'"),
        ("amqp://reader:s3cr3t@127.0.0.1:{mq}/", "our user may not do this: .*broker.declare = false"),
    ],
)
async def test_what_rabbitmq_refuses_for_good_ends_the_start(places: dict[str, str], url: str, says: str) -> None:
    refused = broker(url.format(**places))
    with pytest.raises(ConfigError, match=says) as raised:
        await refused.start()
    await refused.close()
    assert "127.0.0.1" in str(raised.value) or "localhost" in str(raised.value)
    assert not any(secret in str(raised.value) for secret in ("s3cr3t", "wr0ng"))


@pytest.mark.parametrize(
    "url", ["amqp://127.0.0.1:{nobody}/", "amqp://no.such.host.invalid/", "amqp://crowded:s3cr3t@127.0.0.1:{mq}/"]
)
async def test_what_may_be_over_soon_is_tried_again(places: dict[str, str], url: str) -> None:
    away = broker(url.format(**places), patience_s=0.2)
    with pytest.raises(BrokerLost):
        await away.start()
    await away.close()


async def test_a_node_that_refuses_us_is_passed_over_for_one_that_takes_us(places: dict[str, str]) -> None:
    bad, good = "amqps://127.0.0.1:{mqs}/".format(**places), "amqp://127.0.0.1:{mq}/".format(**places)
    either = broker(bad, good)
    await either.start()
    await either.close()
    neither = broker(bad, bad.replace("127.0.0.1", "localhost"))
    with pytest.raises(ConfigError, match="certificate verify failed"):
        await neither.start()
    await neither.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("rediss://:s3cr3t@127.0.0.1:{rediss}/0", "self-signed certificate in certificate chain: name its authority"),
        ("rediss://:s3cr3t@localhost:{rediss}/0?ssl_ca_certs={ca}", "Hostname mismatch.*: its subjectAltName has to"),
        ("rediss://:s3cr3t@127.0.0.1:{rediss}/0?ssl_ca_certs={gone}", "can't read ssl_ca_certs=.*gone.pem"),
        ("rediss://:s3cr3t@127.0.0.1:{rediss}/0?ssl_ca_certs={empty}", "TLS: .*ssl_ca_certs=.*empty.pem PEM files"),
        ("rediss://:s3cr3t@127.0.0.1:{redis}/0?ssl_ca_certs={ca}", "it speaks no TLS on this port: redis://"),
        ("redis://:s3cr3t@127.0.0.1:{rediss}/0", "it speaks TLS on this port: rediss://"),
        ("redis://:wr0ng@127.0.0.1:{redis}/0", "it refuses our user or password"),
        ("redis://127.0.0.1:{redis}/0", "it refuses our user or password"),
        ("redis://:s3cr3t@127.0.0.1:{redis}/99", "DB index is out of range"),
        ("redis://:s3cr3t@127.0.0.1:{mq}/0", "does not speak Redis's protocol"),
    ],
)
async def test_what_redis_refuses_for_good_ends_the_start(places: dict[str, str], url: str, says: str) -> None:
    url = url.format(**places)
    client = store.connect(url, timeout_s=5)
    with pytest.raises(ConfigError, match=says) as raised:
        await store.check_access(client, url, timeout_s=5)
    await client.aclose()
    assert "127.0.0.1" in str(raised.value) or "localhost" in str(raised.value)
    assert not any(secret in str(raised.value) for secret in ("s3cr3t", "wr0ng"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cr3t@127.0.0.1:{redis}/0",
        "rediss://:s3cr3t@127.0.0.1:{rediss}/0?ssl_ca_certs={ca}",
        "redis://127.0.0.1:{nobody}/0",
        "unix://{gone}",
    ],
)
async def test_a_redis_that_is_there_or_away_keeps_no_service_from_starting(places: dict[str, str], url: str) -> None:
    url = url.format(**places)
    client = store.connect(url, timeout_s=5)
    await store.check_access(client, url, timeout_s=5)
    await client.aclose()
