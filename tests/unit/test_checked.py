"""The page of checked figures says what calls are charged."""

from tests.support.charges import charged
from tests.support.checked import limits


async def test_each_call_on_the_page_is_charged_what_it_says() -> None:
    rows = limits()
    assert len(rows) >= 40
    for exchange in {row.exchange for row in rows}:
        said = {row.call: row.charged for row in rows if row.exchange == exchange}
        assert await charged(exchange, said) == said, exchange
