"""Fixtures of the tests of lanes: an HTTP server with given answers, and lanes that are closed at the end."""

from collections.abc import AsyncIterator

import pytest

from tests.support.exchange_lanes import Answers, Lanes, lanes_on


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
