"""Whatever is typed, and whatever is away, a command ends with its exit code and a sentence, never with a traceback."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.processes import free_port
from schemas.exchange_ids import EXCHANGE_IDS
from schemas.operator import options, output
from tests.support.canaries import canary
from tests.support.commands import ROOT, Done, here, leaves

LEAVES = [(words, found) for words, found in leaves()]
# What a command needs to begin at all.
NEEDED: dict[str, list[str]] = {
    "dead show": ["3f"],
    "dead replay": ["--all"],
    "dead drop": ["--all"],
    "pause lift": ["okx", "--yes"],
    "call": ["fetch_time"],
    "http": ["https://api.kraken.com/0/public/Time", "-e", "kraken"],
    "map": [os.devnull],
    "top": ["--json", "--times", "1"],
    "tail": ["--times", "1"],
    "gateway config": ["kraken"],
}
# These reach no server: they read a file, or start what is there.
ALONE = {"definitions", "config check", "limits show", "up", "dispatcher", "worker", "gateway config", "run"}
REDIS_ALONE = {"pause list", "pause lift"}


def named(words: Sequence[str]) -> str:
    return " ".join(words)


def is_in_order(done: Done, secret: str = "") -> None:
    assert "Traceback" not in done.out + done.err
    assert "a fault of ours" not in done.err
    if secret:
        assert secret not in done.out + done.err


@pytest.mark.parametrize(("words", "found"), LEAVES, ids=[named(words) for words, _ in LEAVES])
def test_every_command_explains_itself(words: Sequence[str], found: Any) -> None:
    done = here(*words, "--help")
    assert done.code == output.OK
    text = re.sub(r"\s+", " ", done.out)
    for option in found.params:
        names = [name for name in option.opts if name.startswith("--")]
        assert not names or any(name in text for name in names)
    if any("--url" in option.opts for option in found.params):
        assert "FLEET_BROKER_URL" in text
    if any("--redis-url" in option.opts for option in found.params):
        assert "FLEET_REDIS_URL" in text


@pytest.mark.parametrize("words", [words for words, _ in LEAVES], ids=named)
def test_a_word_that_no_command_knows(words: Sequence[str]) -> None:
    done = here(*words, *NEEDED.get(named(words), []), "--no-such-option")
    is_in_order(done)
    assert done.code == output.USAGE
    assert "no-such-option" in done.err


@pytest.mark.parametrize(
    "words", [words for words, found in LEAVES if any("--json" in each.opts for each in found.params)], ids=named
)
@pytest.mark.parametrize("url", ["http://x/", "amqp://", "amqp://u:{secret}@h:notaport/", "amqp://u:{secret}@[/", ""])
def test_a_url_that_is_none(words: Sequence[str], url: str) -> None:
    if named(words) in ALONE:
        return
    secret = canary()
    option = "--redis-url" if named(words) in REDIS_ALONE else "--url"
    done = here(*words, *NEEDED.get(named(words), []), option, url.format(secret=secret))
    is_in_order(done, secret)
    assert done.code == output.USAGE


@pytest.mark.parametrize("words", [words for words, _ in LEAVES if named(words) not in ALONE], ids=named)
def test_servers_that_are_away(words: Sequence[str]) -> None:
    secret, port = quote(canary(), safe=""), free_port()
    env = {
        "FLEET_BROKER_URL": f"amqp://u:{secret}@127.0.0.1:{port}/",
        "FLEET_REDIS_URL": f"redis://:{secret}@127.0.0.1:{port}",
    }
    done = here(*words, *NEEDED.get(named(words), []), env=env)
    is_in_order(done, secret)
    assert done.code == (output.WRONG if named(words) == "doctor" else output.AWAY), done
    assert f"127.0.0.1:{port}: connection refused" in done.err + done.out
    assert "FLEET_" in done.err + done.out  # what to do


@pytest.mark.parametrize("words", [(), ("dead",), ("pause",), ("config",), ("limits",), ("requests",)], ids=named)
def test_half_a_command_lists_its_commands(words: Sequence[str]) -> None:
    done = here(*words)
    assert done.code == output.USAGE
    assert "Commands" in done.out + done.err


def test_exit_codes_are_told() -> None:
    text = re.sub(r"\s+", " ", here("--help").out)
    for code, what in output.EXIT_CODES.items():
        assert f"{code} {what}" in text


def test_the_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", here("--version").out)


def test_a_fault_of_ours_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(options, "redis_url", broken)
    monkeypatch.setattr("schemas.operator.looking.redis_url", broken)
    done = here("status")
    assert done.code == output.WRONG
    assert "a fault of ours: RuntimeError: odd" in done.err
    assert "Traceback" not in done.err


def test_help_is_there_at_once() -> None:
    """Neither ccxt nor a server's client is imported for it."""
    program = (
        "import sys, runpy; sys.argv = ['ccxt-fleet', '--help']\n"
        "try: runpy.run_module('schemas', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'ccxt', 'aio_pika', 'aiormq', 'redis', 'msgspec', 'asyncio', 'workers', 'deploy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(shell: str, tmp_path: Path) -> None:
    env = {**os.environ, "_CCXT_FLEET_COMPLETE": f"source_{shell}", "HOME": str(tmp_path)}
    program = "import sys; sys.argv = ['ccxt-fleet']; from schemas.operator.cli import app; app(prog_name='ccxt-fleet')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert "_CCXT_FLEET_COMPLETE" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("ccxt-fleet la", "lanes"),
        ("ccxt-fleet call fetch_tick", "fetch_tickers"),
        ("ccxt-fleet call fetch_ticker BTC/USDT --exchange bin", "binance"),
        ("ccxt-fleet lanes ok", "okx"),
        ("ccxt-fleet dead li", "list"),
    ],
)
def test_the_shell_completes_words(typed: str, word: str) -> None:
    number = str(len(typed.split()) - 1)
    env = {**os.environ, "_CCXT_FLEET_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": number}
    program = "import sys; sys.argv = ['ccxt-fleet']; from schemas.operator.cli import app; app(prog_name='ccxt-fleet')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert word in done.stdout.split(), done.stderr


def test_words_are_completed() -> None:
    assert options.complete_method("fetch_tick") == ["fetch_ticker", "fetch_tickers"]
    assert "binance" in options.complete_exchange("bin")
    assert options.complete_strategy("fail") == ["failover"]


def test_the_ids_are_ccxt_s() -> None:
    import ccxt  # pyright: ignore[reportMissingTypeStubs]

    assert set(ccxt.exchanges) == EXCHANGE_IDS  # pyright: ignore[reportUnknownArgumentType, reportAttributeAccessIssue, reportUnknownMemberType]


ODD = [
    "",
    " ",
    "\udcff",
    "x" * 10_000,
    "-1",
    "nan",
    "1e999",
    "../..",
    "{",
    "*",
    "[/red]",
    "💥",
    "\x1b[2J",
    "--",
    "0",
    "99999999999999999999",
]


def odd_words() -> list[Any]:
    """Each option and argument of each command with each odd value."""
    cases: list[Any] = []
    for words, found in LEAVES:
        if named(words) in {"up", "dispatcher", "worker"}:  # they would start something
            continue
        for each in found.params:
            if getattr(each, "is_flag", False) or each.name in {"url", "redis", "help"}:
                continue
            for odd in ODD:
                given = [*NEEDED.get(named(words), [])]
                if each.param_type_name == "argument":
                    given = [word for word in given if word.startswith("-") or word.isdigit()] + ["--", odd]
                else:
                    given = [*given, f"{each.opts[0]}={odd}"]
                cases.append(pytest.param(words, given, id=f"{named(words)} {each.name} {odd[:9]!a}"))
    return cases


@pytest.mark.parametrize(("words", "given"), odd_words())
def test_odd_words(words: Sequence[str], given: list[str]) -> None:
    env = {"FLEET_BROKER_URL": "amqp://u:p@127.0.0.1:1/", "FLEET_REDIS_URL": "redis://127.0.0.1:1"}
    done = here(*words, *given, env=env)
    is_in_order(done)
    assert done.code in {output.OK, output.WRONG, output.USAGE, output.AWAY}
    assert done.code == output.OK or done.err or done.out
    assert "\x1b" not in done.out + done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("limits", "show", "krakken"), "'krakken' is no exchange of ccxt; near it: kraken"),
        (("limits", "show", "ftx"), "ccxt gave ftx up"),
        (("pause", "lift", "krakken"), "'krakken' is no exchange of ccxt; near it: kraken"),
        (("pause", "list", "nope"), "'nope' is no exchange of ccxt"),
        (("config", "check", "no/such.toml"), "no/such.toml: can't be read: No such file"),
        (("config", "check", "."), ".: can't be read: Is a directory"),
        (("dispatcher", "--metrics-port", "70000"), "70000"),
        (("status", "--url", "localhost:5672"), "expected a URL like amqp://user:password@host:5672/"),
        (("status", "--redis-url", "localhost:6379"), "expected a URL like redis://host:6379/0"),
    ],
)
def test_a_wrong_word_is_told_what_would_work(words: tuple[str, ...], says: str) -> None:
    done = here(*words, env={"FLEET_REDIS_URL": "redis://127.0.0.1:1/"})
    assert done.code == output.USAGE
    assert says in " ".join(done.err.replace("│", " ").split())


def test_definitions_are_json_in_any_case() -> None:
    assert here("definitions").out == here("definitions", "--json").out


@pytest.mark.parametrize("words", [(), ("--help",), ("call", "--help"), ("--version",)], ids=named)
def test_an_output_that_nobody_reads(words: Sequence[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.run(
        [sys.executable, "-m", "schemas", *words],
        check=False,
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert child.returncode == output.CLOSED
    assert child.stderr == ""


@given(value=st.recursive(st.text(), lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside)))
def test_data_is_told_to_a_terminal_and_gives_it_no_commands(value: object) -> None:
    """Exchanges, and whoever publishes requests, write what they like."""
    for show in (output.show_json, output.show_json_line):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            show({"data": value})
        assert json.loads(said.getvalue()) == {"data": value}
        assert all(line.isprintable() for line in said.getvalue().split("\n"))


def test_signs_that_terminals_obey_are_written_in_another_way() -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        output.show_json_line(["\x1b[2J", "\x9b2J", "\x7f", "\u202e", "\u2066", "\U000e0001", "é", "日本", "💥"])
    expected = r'["\u001b[2J","\u009b2J","\u007f","\u202e","\u2066","\udb40\udc01","é","日本","💥"]'
    assert said.getvalue() == expected + "\n"


def test_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "\udcff.toml"
    path.write_text("x = 1\n", encoding="utf-8")
    for words in (("config", "check"), ("definitions", "--config"), ("map",)):
        done = here(*words, str(path), *(["--json"] if words[0] == "config" else []))
        is_in_order(done)
        assert done.code != output.OK
