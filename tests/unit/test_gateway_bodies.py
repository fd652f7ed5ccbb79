"""What the gateway holds of answers that are being sent: to the letter, equal ones once, and no more than its part."""

import base64
import gzip
import os
from contextlib import ExitStack

import pytest

from schemas.gateway.bodies import PIECE_BYTES, READER_BYTES, Body, Sending

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 5 * PIECE_BYTES + 7, 3 * MIB])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("random", [False, True])
def test_a_body_is_sent_to_the_letter(size: int, packed: bool, random: bool) -> None:
    body = base64.b64encode(os.urandom(size))[:size] if random else b"a" * size
    told = base64.b64encode(gzip.compress(body)).decode()
    found = Body.of({"body_gzip": told} if packed else {"body": body.decode()})
    given = list(found.pieces())
    assert (found.length, b"".join(given)) == (size, body)
    assert all(len(each) <= PIECE_BYTES for each in given)


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    body = bytes(range(256)) * 300
    found = Body.of({"body_gzip": base64.b64encode(gzip.compress(body)).decode()})
    assert b"".join(found.pieces()) == body


def body(size_bytes: int) -> Body:
    return Body(os.urandom(size_bytes))


def test_what_is_held_has_a_bound_and_a_short_answer_always_has_room() -> None:
    sending = Sending("a", 10 * MIB)
    with ExitStack() as held:
        sizes = [MIB] * 20
        had = [held.enter_context(sending.held(body(size))) for size in sizes]
        assert sum(each is not None for each in had) == 10 * MIB // (MIB + READER_BYTES)
        short = body(PIECE_BYTES)
        assert held.enter_context(sending.held(short)) is short
    with sending.held(body(9 * MIB)) as found:
        assert found is not None  # all of it was given back
    with sending.held(body(20 * MIB)) as found, sending.held(body(MIB)) as second:
        assert found is not None  # larger than the bound: alone
        assert second is None


def test_equal_answers_are_held_once() -> None:
    sending, data = Sending("a", 10 * MIB), os.urandom(6 * MIB)
    with sending.held(Body(bytes(bytearray(data)))) as first:
        with ExitStack() as held:
            others = [held.enter_context(sending.held(Body(bytes(bytearray(data))))) for _ in range(10)]
            assert all(each is first for each in others)
            assert held.enter_context(sending.held(body(6 * MIB))) is None
        assert first is not None
    with sending.held(body(9 * MIB)) as found:
        assert found is not None


async def test_a_bound_may_change_while_something_is_held() -> None:
    sending = Sending("a", 10 * MIB)
    with sending.held(body(6 * MIB)) as first:
        assert first is not None
        await sending.opened()
        sending.resize(2 * MIB)
        with sending.held(body(MIB)) as second:
            assert second is None
        sending.resize(20 * MIB)
        await sending.opened()
        with sending.held(body(6 * MIB)) as second:
            assert second is not None
