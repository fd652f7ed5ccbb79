"""Tasks are cancelled until they end; one that does not is named in the log, with where it stands."""

import asyncio
import logging

import pytest

from schemas.runtime import tasks


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
