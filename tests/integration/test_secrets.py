"""No secret shows, nor a piece of one, in logs, pages, messages, Redis or command lines, whatever goes wrong.

The fleet logs all that any library has to say (DEBUG), and everything that passes RabbitMQ and Redis is recorded.
"""

import asyncio
import base64
import re
import signal
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aio_pika
import msgspec
import pytest
import pytest_asyncio
import tomli_w

from deploy.local import Service, Services, simulated
from deploy.processes import free_port
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.accounts import ACCOUNTS
from deploy.simulator.process import Simulator
from schemas.messages import ErrorCode
from schemas.runtime import modules
from schemas.runtime.results import now_ms
from schemas.runtime.store import connect
from schemas.runtime.tasks import end_tasks
from tests.conftest import new_vhost
from tests.support.canaries import EchoingProxy, Recorder, base64_canary, canary, forms, held_by_redis, leaks
from tests.support.fleet import QUICK, Answer, Client, opened, wait_until

# One event loop, that of the fleet's fixture: proxy and recorders work in it.
pytestmark = pytest.mark.asyncio(loop_scope="session")

ANNA = next(iter(ACCOUNTS.values()))
USER = "canary"
# By lane: what its account has. Anna's the exchange knows, the others it doesn't.
ACCOUNT_PARTS = {
    "okx.anna": ("api_key", "secret", "password"),
    "okx.canary": ("api_key", "secret", "password"),
    "binance.canary": ("api_key", "secret"),
    "kraken.canary": ("api_key", "secret"),
}
# Loaded by every Python that starts with its folder on PYTHONPATH.
ALL_LOGS = """
import logging
configure = logging.basicConfig
logging.basicConfig = lambda **settings: configure(**{**settings, "level": logging.DEBUG})
"""


def made_up() -> dict[str, str]:
    """All secrets, by name; an account's by lane and part."""
    canaries = {name: canary() for name in ("proxy user", "proxy password", "broker password", "redis password")}
    for lane, parts in ACCOUNT_PARTS.items():
        canaries |= {f"{lane} {part}": base64_canary() if "kraken" in lane else canary() for part in parts}
    canaries["proxy user"] = canaries["proxy user"].replace(":", "")  # RFC 7617 has none there
    known = zip(ACCOUNT_PARTS["okx.anna"], (ANNA.key, ANNA.secret, ANNA.passphrase), strict=True)
    return canaries | {f"okx.anna {part}": value for part, value in known}


class World:
    """A fleet of which every secret is a canary, and all that it puts out."""

    def __init__(self, folder: Path, canaries: dict[str, str], rabbitmq: RabbitMQ, redis: Redis, vhost: str) -> None:
        self.folder = folder
        self.canaries = canaries
        self.rabbitmq = rabbitmq
        self.redis = redis
        self.vhost = vhost
        self.recorder = Recorder()
        self.seen: dict[str, bytes] = {}
        self.fleet: Services
        self.client: Client
        self.proxy: EchoingProxy
        self.environment: dict[str, str] = {
            "PYTHONPATH": str(folder),
            "PYTHONWARNINGS": "default",
            "FLEET_BROKER_URL": vhost.replace("guest:guest", f"{USER}:{self.quoted('broker password')}"),
            "FLEET_REDIS_URL": f"redis://:{self.quoted('redis password')}@127.0.0.1:{redis.port}/0",
        }

    def quoted(self, name: str) -> str:
        """A secret as a part of a URL."""
        return quote(self.canaries[name], safe="")

    @property
    def proxy_url(self) -> str:
        """The proxy's URL, with user and password."""
        return f"http://{self.quoted('proxy user')}:{self.quoted('proxy password')}@127.0.0.1:{self.proxy.port}"

    @property
    def services(self) -> list[Service]:
        """Dispatcher and worker."""
        return [*self.fleet.dispatchers, *self.fleet.workers]

    def configuration(self, urls: Mapping[str, str]) -> dict[str, Any]:
        """The lanes of `ACCOUNT_PARTS`, and one without an account for each exchange."""
        config: dict[str, Any] = {**simulated(urls), **QUICK, "accounts": {}}
        # What the exchange answers is to be told to the end of each test.
        config["dispatcher"] = {**QUICK["dispatcher"], "failures_in_a_row": 1000, "error_rate": 1.0}
        config["limits"] = {"okx": {"buckets": {"user_10": {"amount": 1000}}}}
        for lane, parts in ACCOUNT_PARTS.items():
            config["lanes"][lane] = {**config["lanes"][lane.partition(".")[0]], "account": lane}
            if lane.startswith("okx"):
                config["lanes"][lane]["proxy"] = self.proxy_url
                config["lanes"][lane]["ccxt"] = {**config["lanes"][lane]["ccxt"], "verbose": True}
            account = config["accounts"][lane] = {}
            for part in parts:
                secret = self.canaries[f"{lane} {part}"]
                if part == "secret":
                    (self.folder / lane).write_text(secret + "\n")
                    account[part] = {"file": str(self.folder / lane)}
                else:
                    variable = re.sub(r"\W", "_", f"{lane} {part}").upper()
                    self.environment[variable] = secret
                    account[part] = {"env": variable}
        return config

    def change(self, **sections: Mapping[str, Any]) -> None:
        """Writes the configuration with these keys of its sections beside those there are."""
        config = tomllib.loads(self.fleet.config_file.read_text())
        for name, keys in sections.items():
            config[name] = {**config.get(name, {}), **keys}
        self.fleet.config_file.write_text(tomli_w.dumps(config))

    async def ask(self, lane: str, *, within_ms: int = 20_000) -> Answer:
        """What a lane says of its account's balance."""
        deadline_ms = now_ms() + within_ms
        return await self.client.ask("fetch_balance", exchanges=[lane], account=lane, deadline_ms=deadline_ms)

    async def run(self, *words: str, **environment: str) -> int:
        """Runs a program of ours to its end, and remembers what it prints."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words),
            cwd=modules.CHECKOUT,
            env={"COLUMNS": "200", **self.environment, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await child.communicate()
        self.seen[f"{' '.join(words)} {len(self.seen)}"] = printed
        return child.returncode or 0

    async def look(self) -> None:
        """Remembers all that there is to see by now."""
        for service in self.services:
            if service.running:
                for page in ("metrics", "status", "healthz", "readyz"):
                    _, text = await service.ask(page)
                    self.seen[f"/{page} of {service.name} {len(self.seen)}"] = text.encode()
                for file in (Path("/proc", str(service.pid), name) for name in ("cmdline", "comm")):
                    self.seen[f"{file.name} of {service.name}"] = file.read_bytes()
        held = await held_by_redis(self.environment["FLEET_REDIS_URL"])
        self.seen[f"Redis {len(self.seen)}"] = repr(held).encode()
        self.seen["results"] = repr(self.client.answers).encode()
        self.seen["dead letters"] = repr(self.client.dead).encode()
        self.client.answers.clear()
        self.client.dead.clear()

    def leaks(self) -> list[str]:
        """What shows of secrets in what was remembered and came since the last time."""
        files = [*(service.log for service in self.services), self.folder / "redis" / "redis.log"]
        found = leaks({**self.seen, **self.recorder.news(files)}, (ANNA.key, ANNA.secret, ANNA.passphrase))
        self.seen.clear()
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def one_world(
    rabbitmq: RabbitMQ, vhost_numbers: Iterator[int], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """Yield the fleet: a dispatcher and a worker."""
    folder, canaries = tmp_path_factory.mktemp("secrets"), made_up()
    (folder / "sitecustomize.py").write_text(ALL_LOGS)
    vhost = await new_vhost(rabbitmq, vhost_numbers)
    name = vhost.rpartition("/")[2]
    await rabbitmq.ctl("add_user", USER, canaries["broker password"])
    await rabbitmq.ctl("set_permissions", "-p", name, USER, ".*", ".*", ".*")
    await rabbitmq.ctl("trace_on", "-p", name)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(rabbitmq.ctl, "delete_user", USER)
        redis = await stack.enter_async_context(Redis(folder / "redis"))
        client: Any = connect(redis.url, timeout_s=5)
        async with client:
            await client.config_set("requirepass", canaries["redis password"])
        simulator = await stack.enter_async_context(Simulator(exchanges=["okx", "binance", "kraken"]))
        world = World(folder, canaries, rabbitmq, redis, vhost)
        world.proxy = await stack.enter_async_context(
            EchoingProxy.serving(canaries["proxy user"], canaries["proxy password"])
        )
        trace = await (await stack.enter_async_context(await aio_pika.connect(vhost))).channel()
        traced = await trace.declare_queue(exclusive=True)
        await traced.bind("amq.rabbitmq.trace", "#")
        await traced.consume(world.recorder.take, no_ack=True)
        listening = asyncio.create_task(world.recorder.listen(redis, canaries["redis password"]))
        stack.push_async_callback(end_tasks, [listening])
        config = world.configuration(simulator.urls)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for variable, value in {**world.environment, "PYTHONASYNCIODEBUG": "1"}.items():
            patch.setenv(variable, value)
        urls = world.environment["FLEET_BROKER_URL"], world.environment["FLEET_REDIS_URL"]
        world.fleet = Services(folder / "fleet", config, broker_url=urls[0], redis_url=urls[1], workers=1)
        await stack.enter_async_context(world.fleet)
        await opened(world.fleet)
        world.client = await stack.enter_async_context(Client.on(vhost))
        yield world


@pytest_asyncio.fixture(loop_scope="session")
async def world(one_world: World) -> AsyncIterator[World]:
    """Yield the fleet; whatever a test does, nothing shows."""
    yield one_world
    await one_world.look()
    found = one_world.leaks()
    assert not found, "\n".join(found)


async def test_the_search_finds_secrets_however_they_are_written() -> None:
    for secret in (canary(), base64_canary()):
        for name, written in forms(secret).items():
            assert leaks({"there": f"x{written}y".encode()}), name
            for start in range(len(secret) - 18):
                assert leaks({"a piece": secret[start : start + 19].encode()})
    assert not leaks({"another": b"canary"})
    assert leaks({"another": b"a canary"}, ["canary"])


async def test_accounts_are_read(world: World) -> None:
    answer = await world.ask("okx.anna")
    assert answer.result.ok, answer
    assert world.proxy.passed
    for lane in ACCOUNT_PARTS:
        if lane != "okx.anna":
            assert (await world.ask(lane)).code == ErrorCode.AUTHENTICATION
    assert (await world.client.ask("fetch_ticker", {"symbol": "BTC/USDT"}, account="kraken.canary")).result.ok
    assert any(b"fleet.work.okx.anna" in message for message in world.recorder.messages)
    assert any(b"evalsha" in command.lower() for command in world.recorder.commands)


SAID = ("okx.canary api_key", "okx.canary secret", "okx.canary password", "proxy user", "proxy password")
KINDS = {
    "an error": (401, '{"code":"50113","msg":"%s"}', ErrorCode.AUTHENTICATION),
    "a page": (200, "<html>%s</html>", ErrorCode.DEADLINE_EXCEEDED),
    "a failure": (503, '{"code":"50001","msg":"%s"}', ErrorCode.DEADLINE_EXCEEDED),
    "data": (200, '{"code":"0","data":[{"uTime":"1","details":[],"%s":"%s"}]}', None),
    "too many requests": (429, '{"code":"50011","msg":"%s"}', ErrorCode.DEADLINE_EXCEEDED),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_an_exchange_repeats_is_hidden(world: World, kind: str) -> None:
    status, body, code = KINDS[kind]
    written = [[forms(world.canaries[name])[form] for name in SAID] for form in forms(canary())]
    if kind == "too many requests":  # each is a pause
        written = written[:1]
    for number, said in enumerate(written):  # so that a message is cut in the middle of each
        text = "x" * (7 * number) + " ".join(said[number % len(said) :] + said[: number % len(said)])
        world.proxy.answers.append((status, {"X-Said": text}, body.replace("%s", text)))
    before = world.proxy.answered
    for answer in await asyncio.gather(*(world.ask("okx.canary", within_ms=4_000) for _ in written)):
        assert answer.code == code, answer
    assert world.proxy.answered - before >= len(written)
    world.proxy.answers.clear()


async def test_bad_messages(world: World) -> None:
    for queue in ("fleet.requests", "fleet.work.okx.canary", "fleet.returned"):
        await world.client.publish(b"\xc1bad " + queue.encode(), queue)
        await world.client.buried(b"\xc1bad " + queue.encode())
    assert (await world.client.ask("fetch_balance", account="nobody")).code == ErrorCode.UNKNOWN_EXCHANGE
    assert (await world.client.ask("create_order", account="okx.canary")).code == ErrorCode.METHOD_NOT_ALLOWED


WRONG_CHANGES: dict[str, dict[str, Any]] = {
    "a secret in the file": {"accounts": {"okx.canary": {"api_key": "{okx.canary api_key}"}}},
    "a secret too many": {"accounts": {"okx.canary": {"api_key": {"env": "X", "value": "{okx.canary api_key}"}}}},
    "a secret for ccxt": {"lanes": {"okx.more": {"ccxt": {"apiKey": "{okx.canary api_key}"}}}},
    "a proxy's scheme": {"lanes": {"okx.more": {"proxy": "{proxy user}:{proxy password}@proxy:80"}}},
    "a proxy's password": {"lanes": {"okx.more": {"proxy": "http://user:x{proxy password}/?#@proxy:80"}}},
    "a proxy and an address": {"lanes": {"okx.more": {"proxy": "{proxy}", "local_addr": "127.0.0.1"}}},
    "another broker": {"broker": {"urls": ["amqp://user:{broker password}@127.0.0.1:5672/"]}},
    "another Redis": {"redis": {"url": "redis://:{redis password}@127.0.0.1:6379/"}},
}


def filled(value: Any, world: World) -> Any:
    """A configuration with secrets where they are named."""
    text = msgspec.json.encode(value).decode()
    for name, secret in {**world.canaries, "proxy": world.proxy_url}.items():
        text = text.replace(f"{{{name}}}", secret)
    return msgspec.json.decode(text)


async def refused(service: Service) -> str:
    """Why it does not use the file as it is."""
    return str((await service.status())["process"]["configuration"]["error"])


async def used(world: World) -> bool:
    """Whether all use the file as it is."""
    return not any([await refused(service) for service in world.services])


@pytest.mark.parametrize("case", WRONG_CHANGES)
async def test_a_wrong_change_of_the_configuration(world: World, case: str) -> None:
    before = world.fleet.config_file.read_bytes()
    world.change(**filled(WRONG_CHANGES[case], world))
    for service in world.services:
        await wait_until(partial(refused, service), f"{service.name} refuses it")
    await world.look()
    world.fleet.config_file.write_bytes(before)
    for service in world.services:
        service.send(signal.SIGHUP)  # looks at once
    await wait_until(partial(used, world), "all have it as it was")


async def test_a_secret_that_is_gone(world: World) -> None:
    file = world.folder / "okx.canary"
    file.rename(world.folder / "away")
    worker = world.fleet.workers[0]
    worker.send(signal.SIGHUP)
    await wait_until(partial(refused, worker), "the worker refuses it")
    await world.look()
    (world.folder / "away").rename(file)
    worker.send(signal.SIGHUP)
    await wait_until(partial(used, world), "all have it as it was")


async def test_lanes_that_do_not_open(world: World) -> None:
    """Their proxies refuse them and repeat what was sent; or nothing listens."""
    before = world.fleet.config_file.read_bytes()
    lane = tomllib.loads(before.decode())["lanes"]["okx"]
    user, password = (world.canaries[name] for name in ("proxy user", "proxy password"))
    words = [*forms(user).values(), *forms(password).values(), f"http://{user}:{password}@proxy/"]
    world.proxy.refusal = " ".join([*words, base64.b64encode(f"{user}:{password}".encode()).decode()])
    stranger = f"http://{world.quoted('proxy password')}:{world.quoted('proxy user')}@127.0.0.1"
    proxies = {"refused": f"{stranger}:{world.proxy.port}", "nobody": f"{stranger}:{free_port()}"}
    lanes: dict[str, Any] = {  # with markets of their own: others' would do
        f"okx.{name}": {**lane, "proxy": proxy, "ccxt": {**lane["ccxt"], "commonCurrencies": {"OWN": name}}}
        for name, proxy in proxies.items()
    }
    lanes["coinbase"] = {"proxy": world.proxy_url}  # its own URLs, through a tunnel that is refused
    world.change(lanes=lanes)
    (worker,) = world.fleet.workers

    async def open_not() -> bool:
        errors = {each["lane"]: each["error"] for each in (await worker.status())["lanes"]}
        return all(errors.get(lane) for lane in lanes)

    await wait_until(open_not, "the worker says why they don't open")
    await world.look()
    world.fleet.config_file.write_bytes(before)
    await wait_until(partial(used, world), "all have it as it was")


async def test_servers_that_refuse_passwords(world: World) -> None:
    """All connections end, and the passwords have changed when the services come back."""
    (worker,) = world.fleet.workers
    client: Any = connect(world.environment["FLEET_REDIS_URL"], timeout_s=5)
    async with client:
        await client.config_set("requirepass", "another")
        await client.client_kill_filter(_type="normal", skipme=True)
        await world.rabbitmq.ctl("change_password", USER, "another")
        await world.rabbitmq.ctl("close_all_user_connections", USER, "a test")
        for service in world.services:
            await wait_until(partial(logged, service, "reconnect_refused"), f"{service.name} is refused")
        await wait_until(partial(logged, worker, "budget_on_its_own"), "the worker is without Redis")
        await client.config_set("requirepass", world.canaries["redis password"])
    await world.rabbitmq.ctl("change_password", USER, world.canaries["broker password"])
    for service in world.services:
        await wait_until(partial(connected, service), f"{service.name} is back")
    assert (await world.ask("okx.anna")).result.ok


def logged(service: Service, event: str) -> bool:
    return event in service.log.read_text()


async def connected(service: Service) -> bool:
    return (await service.status())["process"]["connected"] is True


WRONG_STARTS = {
    "not TOML": ("dispatcher", "[accounts.x]\napi_key = {okx.canary api_key}"),
    "a broker's password": ("dispatcher", "broker.urls = ['amqp://user:1{broker password}/?#@host/']\n[lanes.okx]"),
    "a broker's scheme": ("dispatcher", "broker.urls = ['http://user:{broker password}@host/']\n[lanes.okx]"),
    "no broker": (
        "dispatcher",
        "[broker]\npatience_s = 0.2\nurls = ['amqp://{broker password}:{broker password}@127.0.0.1:1/']\n[lanes.okx]",
    ),
    "a Redis's password": ("dispatcher", "redis.url = 'redis://:1{redis password}/?#@host/0'\n[lanes.okx]"),
    "a proxy's password": ("dispatcher", "[lanes.okx]\nproxy = 'http://user:1{proxy password}/?#@host:80'"),
    "a secret in the file": ("dispatcher", "[lanes.okx]\n[accounts.x]\napi_key = '{okx.canary api_key}'"),
    "settings that ccxt does not take": (
        "workers",
        "[lanes.okx]\naccount = 'x'\nproxy = '{proxy}'\nccxt = { markets = 7 }\n"
        "[accounts.x]\napi_key = { env = 'OKX_CANARY_API_KEY' }",
    ),
    "too few secrets": (
        "workers",
        "[lanes.okx]\naccount = 'x'\n[accounts.x]\napi_key = { env = 'OKX_CANARY_API_KEY' }",
    ),
}


@pytest.mark.parametrize("case", WRONG_STARTS)
async def test_a_service_that_cannot_start(world: World, case: str) -> None:
    service, text = WRONG_STARTS[case]
    path = world.folder / "wrong.toml"
    path.write_text(filled(text, world))
    assert await world.run(service, "--config", str(path), FLEET_BROKER_URL="", FLEET_REDIS_URL="") == 1


@pytest.mark.parametrize("variable", ["FLEET_BROKER_URL", "FLEET_REDIS_URL"])
async def test_a_wrong_environment(world: World, variable: str) -> None:
    scheme = "amqp" if "BROKER" in variable else "redis"
    config = str(world.fleet.config_file)
    for url in ("{scheme}://user:1{broker password}/?#@host/", "http://{broker password}@host"):
        wrong = {variable: filled(url.replace("{scheme}", scheme), world)}
        assert await world.run("dispatcher", "--config", config, **wrong) == 1
        if scheme == "amqp":
            assert await world.run("schemas", "dead", "list", **wrong) == 2


async def test_command_lines(world: World) -> None:
    config, refused = world.fleet.config_file, world.environment["FLEET_BROKER_URL"].replace(f"{USER}:", "stranger:")
    wrong = (refused, re.sub(r"@.*", f"@127.0.0.1:{free_port()}/", refused), refused + "-no-such-vhost")
    well = ("dispatcher --help", "schemas definitions --help", f"schemas definitions --config {config}")
    looks = "dead list,dead show no-such-key,status,lanes,budget --json,doctor,pause list,top --json --times 1"
    checks = f"config check {config},limits show --config {config}"
    left = await asyncio.gather(
        *(world.run(*words.split()) for words in well),
        *(world.run("schemas", *words.split()) for words in f"{looks},{checks}".split(",")),
        *(world.run("schemas", "dead", "list", FLEET_BROKER_URL=url) for url in wrong),
    )
    assert (left[:5], left[-3:], set(left[5:-3]) <= {0, 1}) == ([0, 0, 0, 1, 1], [4, 4, 4], True)


async def test_the_fleet_leaves(world: World) -> None:
    await world.fleet.stop()
    assert [service.exit_code for service in world.services] == [0, 0]
    assert all(b" DEBUG " in service.log.read_bytes() for service in world.services)
