"""A worker logs a version of ccxt that the tests did not run with."""

import re
from pathlib import Path

import pytest

from workers.exchange import versions

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("file", "version"), [("constraints-lowest", versions.TESTED[0]), ("constraints", versions.TESTED[1])]
)
def test_the_tested_versions_are_those_the_tests_run_with(file: str, version: str) -> None:
    pinned = re.search(r"^ccxt==(\S+)", (ROOT / f"{file}.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    assert pinned[1] == version


@pytest.mark.parametrize(
    ("version", "tested"),
    [("4.5.90", True), ("4.5.89", False), ("4.5.100", False), ("4.6.0", False), ("5", False)],
)
def test_a_version_that_was_not_tested_is_logged(version: str, tested: bool, caplog: pytest.LogCaptureFixture) -> None:
    assert versions.check(version) is tested
    assert [record.getMessage() for record in caplog.records] == ([] if tested else ["ccxt_untested"])
