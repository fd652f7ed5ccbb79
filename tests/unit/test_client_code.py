"""The client's methods and types are what ccxt says of its reads."""

import pytest

from schemas.client.blocking_reads import BlockingReads
from schemas.client.reads import Reads
from schemas.methods import PRIVATE_READS, PUBLIC_READS
from tests.support import client_code


def test_the_modules_are_current() -> None:
    other = [path.name for path, text in client_code.modules().items() if path.read_text(encoding="utf-8") != text]
    assert not other, "ccxt says something else now: python -m tests.support.client_code"


@pytest.mark.parametrize("kind", [Reads, BlockingReads])
def test_every_read_is_there(kind: type) -> None:
    methods = {name for name in vars(kind) if not name.startswith("_")}
    assert methods - {"read"} == PUBLIC_READS | PRIVATE_READS
