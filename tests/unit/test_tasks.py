"""Tasks are cancelled until they end; one that does not is named in the log, with where it stands."""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys

import pytest
import typer

from schemas.operator import output
from schemas.runtime import tasks
from tests.support.cancels import Cancelling, awaited


async def held(go: asyncio.Event) -> None:
    """Swallows every cancellation until it may go."""
    while not go.is_set():
        try:
            await go.wait()
        except asyncio.CancelledError:
            continue


async def outer(go: asyncio.Event) -> None:
    await held(go)


async def test_a_task_that_does_not_end_is_named_with_where_it_stands(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "SLOW_S", 0.0)
    go = asyncio.Event()
    task = asyncio.create_task(outer(go), name="lane okx")
    await asyncio.sleep(0)
    ending = asyncio.create_task(tasks.end_tasks([task]))
    while not caplog.records:
        await asyncio.sleep(0.01)
    go.set()
    await ending
    (record,) = (each for each in caplog.records if each.levelno == logging.WARNING)
    (where,) = record.__dict__["tasks"]
    assert (record.message, where.partition(":")[0]) == ("tasks_not_ending", "lane okx")
    assert "Event.wait" in where


async def test_tasks_that_end_are_no_news(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(tasks, "SLOW_S", 0.0)
    await tasks.end_tasks([asyncio.create_task(asyncio.sleep(60))])
    assert not caplog.records


async def deaf(swallows: int) -> None:
    for number in itertools.count():
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)
        with contextlib.suppress(asyncio.CancelledError) if number <= swallows else contextlib.nullcontext():
            await asyncio.sleep(0.01 if number == 0 else 60)


@pytest.mark.parametrize("swallows", [0, 1, 2])
def test_ctrl_c_ends_a_command_that_swallows_it(swallows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "CLOSING_S", 0.02)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
    try:
        with pytest.raises(typer.Exit) as ended:
            output.run(deaf(swallows))
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.exit_code == output.STOPPED


async def swallows_one() -> None:
    """As `asyncio.wait_for` of Python 3.11 does, where the cancellation comes at a certain moment."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    await asyncio.sleep(60)


async def fails() -> None:
    raise OSError("for a reason")


async def test_where_a_side_task_fails_the_others_end_whatever_they_swallow() -> None:
    side_tasks = tasks.SideTasks()
    deaf = side_tasks.create_task(swallows_one())
    with pytest.raises(ExceptionGroup) as raised:
        async with side_tasks:
            side_tasks.create_task(fails())
            await side_tasks.until(asyncio.Event())
    assert [str(error) for error in raised.value.exceptions] == ["for a reason"]
    assert deaf.cancelled()


async def test_a_side_task_that_ends_as_if_it_had_been_cancelled_is_a_failure() -> None:
    """A connection that dies cancels what waits on it: whatever that task was for would not be done any more."""
    side_tasks, connection = tasks.SideTasks(), asyncio.get_running_loop().create_future()

    async def waits() -> None:
        await connection

    with pytest.raises(ExceptionGroup) as raised:
        async with side_tasks:
            side_tasks.create_task(waits(), name="report")
            await asyncio.sleep(0)
            connection.cancel()
            await side_tasks.until(asyncio.Event())
    assert "'report'" in str(raised.value.exceptions[0])


async def test_side_tasks_may_return_and_be_cancelled_and_end_with_the_main_one() -> None:
    stop = asyncio.Event()
    async with tasks.SideTasks() as side_tasks:
        side_tasks.create_task(asyncio.sleep(0))
        ended = side_tasks.create_task(swallows_one())
        left = side_tasks.create_task(swallows_one())
        await asyncio.sleep(0)
        await tasks.end_tasks([ended])
        stop.set()
        await side_tasks.until(stop)
    assert (ended.cancelled(), left.cancelled()) == (True, True)


async def test_a_side_task_that_fails_while_the_main_one_ends_is_told_then() -> None:
    stop = asyncio.Event()
    stop.set()
    done = False
    with pytest.raises(ExceptionGroup):
        async with tasks.SideTasks() as side_tasks:
            await side_tasks.until(stop)
            side_tasks.create_task(fails())
            await asyncio.sleep(0.01)
            done = True
    assert done


async def test_a_job_has_its_time_whatever_it_swallows() -> None:
    with pytest.raises(TimeoutError):
        await tasks.done_within(0.01, swallows_one())
    assert await tasks.done_within(60, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(OSError, match="for a reason"):
        await tasks.done_within(60, fails())


@pytest.mark.parametrize("late", [False, True])
async def test_every_wait_of_a_job_can_be_cancelled(late: bool) -> None:
    async def job() -> None:
        for _ in range(3):
            await asyncio.wait_for(asyncio.sleep(0.001), 60)
            await asyncio.sleep(0)

    number = 0
    for number in itertools.count(1):
        cancelling = Cancelling(job(), number, late=late)
        task = asyncio.create_task(awaited(cancelling))
        await asyncio.wait([task])
        if cancelling.waits < number:
            break
        swallows = late and sys.version_info < (3, 12)
        assert task.cancelled() or (swallows and number % 2), number
    assert number == 7
