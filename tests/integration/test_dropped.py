"""What `fleet.results` drops unread is counted, one by one: in the metrics and the status of every dispatcher."""

from collections.abc import AsyncIterator

import pytest

from schemas import topology
from tests.support.fleet import Stand, wait_until

LENGTH = 10


async def length(stand: Stand) -> int:
    """How many results lie there."""
    queue = await stand.client.channel.declare_queue(topology.RESULTS, passive=True)
    return queue.declaration_result.message_count or 0


async def dropped(stand: Stand, reason: str) -> float:
    """How many the dispatcher has counted."""
    return await stand.metric(stand.fleet.dispatchers, "fleet_results_dropped_total", reason)


async def policy(stand: Stand, definition: str) -> None:
    """Limits `fleet.results` to less than its arguments: RabbitMQ heeds the smaller of the two."""
    words = ("results", r"^fleet\.results$", definition, "--apply-to", "queues")
    await stand.rabbitmq.ctl("set_policy", "-p", stand.url.rpartition("/")[2], *words)


@pytest.fixture
async def unread(stand: Stand) -> AsyncIterator[Stand]:
    """Yield the fleet with nothing in `fleet.results`, and that as it was afterwards."""
    vhost = stand.url.rpartition("/")[2]

    async def nothing_under_way() -> bool:
        """Waits until no request of an earlier test is left: its result would come here, as its client is gone."""
        queues = await stand.rabbitmq.ctl("list_queues", "-p", vhost, "name", "messages", "--no-table-headers")
        held = {name: int(count) for name, count in (line.split() for line in queues.splitlines())}
        return not any(count for name, count in held.items() if name not in (topology.RESULTS, topology.DEAD))

    await wait_until(nothing_under_way, "nothing is under way", timeout_s=90, every_s=0.5)
    await (await stand.client.channel.get_queue(topology.RESULTS, ensure=False)).purge()
    yield stand
    await stand.rabbitmq.ctl("clear_policy", "-p", stand.url.rpartition("/")[2], "results")


async def answered(stand: Stand, count: int) -> None:
    """So many requests without an address are answered."""
    sent = [await stand.client.send({"method": "create_order"}, reply_to=None) for _ in range(count)]
    for each in sent:
        await stand.client.answer(each)


async def counted(stand: Stand, reason: str, count: float) -> None:
    """So many are counted, and no more."""

    async def enough() -> bool:
        return await dropped(stand, reason) >= count

    await wait_until(enough, f"{count:.0f} dropped are counted")
    assert await dropped(stand, reason) == count


async def test_what_is_too_much_is_counted(unread: Stand) -> None:
    before, aged = await dropped(unread, "maxlen"), await dropped(unread, "expired")
    (dispatcher,) = unread.fleet.dispatchers
    told = (await dispatcher.status())["results_dropped"]
    await policy(unread, f'{{"max-length": {LENGTH}}}')
    await answered(unread, 100)
    assert await length(unread) == LENGTH

    await counted(unread, "maxlen", before + 100 - LENGTH)
    # Who reads takes what is there, and nothing of it counts.
    queue = await unread.client.channel.get_queue(topology.RESULTS, ensure=False)
    while message := await queue.get(fail=False):
        await message.reject()
    await answered(unread, LENGTH + 1)
    await counted(unread, "maxlen", before + 100 - LENGTH + 1)
    assert await dropped(unread, "expired") == aged
    assert (await dispatcher.status())["results_dropped"] - told == 100 - LENGTH + 1


async def test_what_is_too_old_is_counted(unread: Stand) -> None:
    before = await dropped(unread, "expired")
    await policy(unread, '{"message-ttl": 1}')
    await answered(unread, 20)
    await counted(unread, "expired", before + 20)


async def test_it_is_counted_again_after_a_lost_connection(unread: Stand) -> None:
    before = await dropped(unread, "maxlen")
    (dispatcher,) = unread.fleet.dispatchers
    connects = (await dispatcher.status())["process"]["connects"]
    for line in (await unread.rabbitmq.ctl("list_connections", "pid", "client_properties")).splitlines():
        if f"({dispatcher.pid})" in line:
            await unread.rabbitmq.ctl("close_connection", line.split()[0], "a test")

    async def back() -> bool:
        process = (await dispatcher.status())["process"]
        return bool(process["connected"] and process["connects"] > connects)

    await wait_until(back, "the dispatcher is connected again")
    await policy(unread, f'{{"max-length": {LENGTH}}}')
    await answered(unread, 30)

    async def counts() -> bool:
        await answered(unread, 1)
        return await dropped(unread, "maxlen") > before

    await wait_until(counts, "it counts again")
