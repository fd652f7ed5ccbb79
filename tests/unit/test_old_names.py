"""The table of old names against the list of exchanges that ccxt has."""

import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]

from schemas import old_names


def test_every_successor_is_an_exchange_of_ccxt_and_no_old_name_is() -> None:
    known = set(ccxt.exchanges)
    assert not set(old_names.RENAMED.values()) - known
    assert not (set(old_names.RENAMED) | old_names.GIVEN_UP) & known
    assert not set(old_names.RENAMED) & old_names.GIVEN_UP


def test_the_names_that_users_still_write_are_there() -> None:
    assert {old_names.today(name) for name in ("huobi", "huobipro", "htx")} == {"htx"}
    assert {old_names.today(name) for name in ("okex", "okex3", "okex5", "okx")} == {"okx"}
    assert (old_names.today("gateio"), old_names.today("coinbasepro")) == ("gate", "coinbaseexchange")
    assert (old_names.today("okex-sandbox"), old_names.today("okx-sandbox")) == ("okx-sandbox", "okx-sandbox")
    assert old_names.remark("okex-sandbox") == "okex-sandbox is okx-sandbox today"
    assert all("gave" in old_names.remark(name) for name in ("bitmex", "bitmart", "ascendex", "coinex"))
    assert old_names.remark("okx") == ""
