"""systemd's units: what the check of them finds, and that they start services by words that these take."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support import units_lint
from tests.support.commands import here

UNITS = sorted(units_lint.FOLDER.glob("*.service"))


def test_there_is_one_for_each_service() -> None:
    assert [unit.name for unit in UNITS] == [
        "ccxt-fleet-dispatcher@.service",
        "ccxt-fleet-gateway.service",
        "ccxt-fleet-worker.service",
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_each_starts_a_service_by_options_that_it_has(unit: Path) -> None:
    program, service, *options = words(unit)
    assert program == f"{units_lint.PLACE}/ccxt-fleet"
    known = here(service, "--help").out
    named = [word for word in options if word.startswith("--")]
    assert "--metrics-port" in named
    for word in named:
        assert word in known


def words(unit: Path) -> list[str]:
    """What a unit starts, with the words that it sets itself."""
    text = unit.read_text(encoding="utf-8")
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    for name, value in re.findall(r'^Environment="(\w+)=(.*)"$', text, re.MULTILINE):
        line = line.replace(f"${name}", value)
    return shlex.split(line)


def test_without_systemd_the_check_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert units_lint.main() == 1
    assert capsys.readouterr().err == "systemd-analyze is not installed: run `apt-get install systemd`\n"
