"""Large messages wait for room in the order in which they came."""

import asyncio

from schemas.runtime.room import Room


async def settle() -> None:
    """All that can go on now has done so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_to_come_is_served_first_and_it_is_never_overfull() -> None:
    room, order = Room(3, 100), list[int]()

    async def use(number: int, size_bytes: int, until: asyncio.Event) -> None:
        async with room.taken(size_bytes):
            order.append(number)
            assert room.count <= 3
            assert room.size_bytes <= 100 or room.count == 1
            await until.wait()

    leave = [asyncio.Event() for _ in range(6)]
    sizes = (40, 50, 60, 5, 300, 10)
    tasks = [asyncio.create_task(use(number, *of)) for number, of in enumerate(zip(sizes, leave, strict=True))]
    await settle()
    assert order == [0, 1]  # the fourth would fit, but the third was there before
    opened = asyncio.create_task(room.opened())
    for number, expected in enumerate(([0, 1], [0, 1, 2, 3], [0, 1, 2, 3])):
        leave[number].set()
        await settle()
        assert order == expected
    assert not opened.done()
    leave[3].set()
    await settle()
    assert order == [0, 1, 2, 3, 4]  # larger than all of it: alone
    leave[4].set()
    leave[5].set()
    await asyncio.gather(*tasks, opened)
    assert order == [0, 1, 2, 3, 4, 5]
    assert (room.count, room.size_bytes) == (0, 0)


async def test_giving_up_waiting_holds_nothing_and_lets_others_pass() -> None:
    room = Room(10, 100)
    await room.take(60)
    large = asyncio.create_task(room.take(100))
    small = asyncio.create_task(room.take(10))
    await settle()
    large.cancel()
    await asyncio.wait([large])
    await small
    room.give(60)
    room.give(10)
    assert (room.count, room.size_bytes) == (0, 0)
    await room.take(100)
    turned = asyncio.create_task(room.take(100))
    await settle()
    room.give(100)
    turned.cancel()  # its turn has just come
    await asyncio.wait([turned])
    assert (room.count, room.size_bytes) == (0, 0)


async def test_it_may_get_larger_and_smaller_while_others_wait() -> None:
    room = Room(2, 100)
    assert room.take_now(10)
    assert room.take_now(10)
    assert not room.take_now(0)
    waiting = [asyncio.create_task(room.take(10)) for _ in range(3)]
    await settle()
    assert not any(each.done() for each in waiting)
    room.resize(4, 100)
    await settle()
    assert [each.done() for each in waiting] == [True, True, False]
    room.resize(1, 100)
    for _ in range(3):
        room.give(10)
        await settle()
    assert room.count == 1  # of the four that it held
    assert not waiting[2].done()
    room.give(10)
    await settle()
    assert waiting[2].done()
    assert not room.take_now(10)
