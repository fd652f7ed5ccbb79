"""Which lanes a worker serves by its ``--lanes``."""

import pytest

from schemas.errors import ConfigError
from workers.part import ALL, Part

LANES = ["okx", "okx.eu1", "binance", "kraken"]


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("okx", ["okx"]),
        ("okx*", ["okx", "okx.eu1"]),
        ("okx.*,kraken", ["okx.eu1", "kraken"]),
        (" kraken , okx ", ["okx", "kraken"]),
        ("*", LANES),
        ("[bk]*", ["binance", "kraken"]),
    ],
)
def test_patterns_name_lanes(text: str, served: list[str]) -> None:
    part = Part.read(text)
    part.check(LANES)
    assert part.of(LANES) == served


def test_without_patterns_it_is_all_of_them() -> None:
    ALL.check([])
    assert ALL.of(LANES) == LANES


@pytest.mark.parametrize("text", ["OKX", "okx,mtgox", "okx.eu2*"])
def test_a_pattern_that_no_lane_fits_is_an_error_that_names_the_lanes(text: str) -> None:
    with pytest.raises(ConfigError, match=r"fits no lane; there are okx, okx\.eu1, binance, kraken$"):
        Part.read(text).check(LANES)


@pytest.mark.parametrize("text", ["", ",", "okx,", "okx, ,kraken"])
def test_an_empty_pattern_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="expected names of lanes"):
        Part.read(text)
