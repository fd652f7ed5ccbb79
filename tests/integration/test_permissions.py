"""Each role's user can do what it is for, and none of what it must not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractChannel

import schemas as client
from deploy.local import Services, simulated
from deploy.servers import RabbitMQ
from deploy.simulator.process import Simulator
from schemas.config import load
from schemas.definitions import ROLES, definitions
from schemas.operator import output
from schemas.runtime import modules
from tests.support.commands import command
from tests.support.fleet import QUICK, wait_until

Act: TypeAlias = Callable[[AbstractChannel], Coroutine[Any, Any, object]]

PASSWORDS = """
lists:foreach(fun(Name) ->
    rabbit_auth_backend_internal:change_password(Name, <<"secret">>, <<"tests">>)
end, [<<"fleet-producer">>, <<"fleet-dispatcher">>, <<"fleet-worker">>, <<"fleet-operator">>]).
"""


@pytest.fixture
async def users(rabbitmq: RabbitMQ, vhost: str, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The URL of each role's user, in a virtual host made from definitions."""
    name = vhost.rpartition("/")[2]
    path = tmp_path / "definitions.json"
    path.write_bytes(msgspec.json.encode(definitions(["binance"], name)))
    await rabbitmq.ctl("import_definitions", str(path))
    await rabbitmq.eval(PASSWORDS)
    yield {role: vhost.replace("guest:guest", f"{role}:secret") for role in ROLES}
    users = ", ".join(f'<<"{role}">>' for role in ROLES)
    await rabbitmq.eval(f'[rabbit_auth_backend_internal:delete_user(Name, <<"tests">>) || Name <- [{users}]].')


def publish(exchange: str, key: str = "") -> Act:
    async def act(channel: AbstractChannel) -> object:
        to = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        return await to.publish(aio_pika.Message(b"x"), key, mandatory=False)

    return act


def read(queue: str) -> Act:
    async def act(channel: AbstractChannel) -> object:
        return await (await channel.get_queue(queue, ensure=False)).get(fail=False)

    return act


def bind(exchange: str) -> Act:
    async def act(channel: AbstractChannel) -> object:
        return await (await channel.declare_queue(exclusive=True)).bind(exchange)

    return act


def declare(queue: str) -> Act:
    return lambda channel: channel.declare_queue(queue)


def delete(queue: str) -> Act:
    return lambda channel: channel.queue_delete(queue)


MAY: dict[str, dict[str, Act]] = {
    "fleet-producer": {
        "publish a request": publish("fleet.requests"),
        "read results": read("fleet.results"),
        "have a queue": lambda channel: channel.declare_queue(exclusive=True),
        "have a lasting queue": declare("fleet.client.mine"),
    },
    "fleet-dispatcher": {
        "read requests": read("fleet.requests"),
        "read returned attempts": read("fleet.returned"),
        "send an attempt": publish("fleet.work", "binance"),
        "take an attempt back": read("fleet.work.binance"),
        "let one wait": publish("", "fleet.delay.1s"),
        "publish a result": publish("fleet.results", "none.x.error"),
        "bury": publish("", "fleet.dead"),
        "count what is dropped": bind("fleet.dropped"),
    },
    "fleet-worker": {
        "read attempts": read("fleet.work.binance"),
        "hand back": publish("", "fleet.returned"),
        "publish a result": publish("fleet.results", "binance.x.ok"),
        "report": publish("fleet.reports"),
    },
    "fleet-operator": {
        "read dead letters": read("fleet.dead"),
        "publish a request": publish("fleet.requests"),
        "declare": declare("fleet.more"),
        "delete": delete("fleet.more"),
    },
}
MAY_NOT: dict[str, dict[str, Act]] = {
    "fleet-producer": {
        "publish past the exchange": publish("", "fleet.requests"),
        "send an attempt": publish("fleet.work", "binance"),
        "answer": publish("fleet.results", "binance.x.ok"),
        "report": publish("fleet.reports"),
        "read requests": read("fleet.requests"),
        "read attempts": read("fleet.work.binance"),
        "read dead letters": read("fleet.dead"),
        "declare": declare("fleet.work.mine"),
        "delete": delete("fleet.requests"),
    },
    "fleet-dispatcher": {
        "publish a request": publish("fleet.requests"),
        "report": publish("fleet.reports"),
        "read results": read("fleet.results"),
        "read dead letters": read("fleet.dead"),
        "declare": declare("fleet.work.mine"),
        "delete": delete("fleet.work.binance"),
    },
    "fleet-worker": {
        "publish a request": publish("fleet.requests"),
        "send an attempt": publish("fleet.work", "binance"),
        "read requests": read("fleet.requests"),
        "read returned attempts": read("fleet.returned"),
        "read results": read("fleet.results"),
        "read dead letters": read("fleet.dead"),
        "declare": declare("mine"),
        "delete": delete("fleet.work.binance"),
    },
    "fleet-operator": {
        "declare what is not the fleet's": declare("mine"),
        "delete what is not the fleet's": delete("mine"),
        "read what is not the fleet's": read("mine"),
    },
}


async def test_each_role_may_do_its_work_and_nothing_that_is_another_s(users: dict[str, str], vhost: str) -> None:
    async with await aio_pika.connect(vhost) as connection:
        await (await connection.channel()).declare_queue("mine", durable=True)
    for role, url in users.items():
        async with await aio_pika.connect(url) as connection:
            for name, act in MAY[role].items():
                try:
                    await act(await connection.channel())
                except aio_pika.exceptions.ChannelClosed as error:
                    pytest.fail(f"{role} should be able to {name}: {error}")
            for name, act in MAY_NOT[role].items():
                try:
                    async with asyncio.timeout(10):
                        await act(await connection.channel())
                except aio_pika.exceptions.ChannelClosed as error:
                    assert "ACCESS_REFUSED" in str(error), (role, name, error)
                else:
                    pytest.fail(f"{role} could {name}")


async def test_the_client_needs_no_more_than_a_producer_may(users: dict[str, str]) -> None:
    async with client.Fleet(users["fleet-producer"]) as fleet:
        with pytest.raises(client.DeadlineExceeded, match="is a dispatcher running"):
            await fleet.fetch_time(deadline=timedelta(seconds=0.2))
        async with fleet.results("okx.#"):
            pass
    with pytest.raises(client.NotAllowed, match="our user may not do this"):
        async with client.Fleet(users["fleet-worker"]):
            pass


async def test_a_fleet_works_as_these_users(users: dict[str, str], redis_url: str, tmp_path: Path) -> None:
    async with Simulator(exchanges=["binance"]) as simulator:
        config = {**simulated(simulator.urls), **QUICK, "broker": {**QUICK["broker"], "declare": False}}
        folders = tmp_path / "dispatcher", tmp_path / "worker"
        dispatchers = Services(
            folders[0], config, broker_url=users["fleet-dispatcher"], redis_url=redis_url, dispatchers=1, workers=0
        )
        workers = Services(
            folders[1], config, broker_url=users["fleet-worker"], redis_url=redis_url, dispatchers=0, workers=1
        )
        async with workers, dispatchers, await aio_pika.connect(users["fleet-producer"]) as connection:
            await dispatchers.ready(["binance"])
            channel = await connection.channel()
            replies = await channel.declare_queue(exclusive=True)
            body = msgspec.json.encode({"method": "fetch_ticker", "args": {"symbol": "BTC/USDT"}})
            message = aio_pika.Message(body, reply_to=replies.name, content_type="application/json")
            await (await channel.get_exchange("fleet.requests", ensure=False)).publish(message, "")

            async def answered() -> bool:
                reply = await replies.get(fail=False, no_ack=True)
                return reply is not None and msgspec.json.decode(reply.body)["ok"]

            await wait_until(answered, "a result")


def test_the_file_is_what_the_program_makes() -> None:
    path = modules.FLEET_TOML.with_name("rabbitmq") / "definitions.json"
    assert msgspec.json.decode(path.read_bytes()) == definitions(load(modules.FLEET_TOML, {}).lanes)


async def test_commands_that_look_need_no_more_than_an_operator_may(users: dict[str, str], redis_url: str) -> None:
    for words in ("status", "lanes", "budget", "doctor", "dead list", "top --json --times 1"):
        done = await command(*words.split(), broker_url=users["fleet-operator"], redis_url=redis_url)
        assert done.code in {output.OK, output.WRONG}, done
        assert "may not" not in done.out + done.err
    for words in ("lanes", "budget", "dead list"):
        done = await command(*words.split(), broker_url=users["fleet-producer"], redis_url=redis_url)
        assert "Take the URL of the user fleet-operator" in done.err
        assert "secret" not in done.out + done.err
