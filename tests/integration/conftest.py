"""Fixtures of the tests of lanes, with a server of given answers, and of shared answers."""

from collections.abc import AsyncIterator

import pytest

from tests.support.exchange_lanes import Answers, Lanes, lanes_on
from tests.support.sharers import Dispatcher, dispatcher, keeper
from workers.keeping import Keeping


@pytest.fixture
async def server() -> AsyncIterator[Answers]:
    """Yield the server; a test gives it its answers."""
    async with Answers.serving() as answers:
        yield answers


@pytest.fixture
async def lanes(redis_url: str) -> AsyncIterator[Lanes]:
    """Yield what makes lanes on the session's Redis."""
    async with lanes_on(redis_url) as lanes:
        yield lanes


@pytest.fixture
async def two(redis_url: str) -> AsyncIterator[tuple[Dispatcher, Dispatcher]]:
    """Yield two dispatchers on one Redis."""
    async with dispatcher(redis_url) as one, dispatcher(redis_url) as other:
        yield one, other


@pytest.fixture
async def keeping(redis_url: str) -> AsyncIterator[Keeping]:
    """Yield what a worker keeps answers with."""
    async with keeper(redis_url) as made:
        yield made
