"""The Lua library's contract with Python, by what stands in its files; what it does is tested on a real Redis."""

import inspect
import re
from pathlib import Path

import pytest

from tests.support import lua_lint
from workers.budget import protocol
from workers.budget.script import FILES, FOLDER

SOURCES = {name: (FOLDER / name).read_text(encoding="utf-8") for name in FILES}
HEAD = re.compile(r"\b(KEYS|ARGV|keys\[|args\[)")


def test_every_lua_file_is_loaded() -> None:
    assert sorted(FILES) == sorted(path.name for path in FOLDER.iterdir())


def test_keys_and_arguments_are_read_by_place_in_first_lines_alone() -> None:
    """Up to the first empty line of a function."""
    for name, text in SOURCES.items():
        head = False
        for number, line in enumerate(text.splitlines(), start=1):
            head = bool(re.match(r"(local )?function ", line)) or (head and bool(line.strip()))
            assert head or not HEAD.search(line), f"{name}:{number}: {line}"


def test_every_entry_says_what_it_takes_and_protocol_has_a_question_for_it() -> None:
    entries: set[str] = set()
    for name, text in SOURCES.items():
        for match in re.finditer(r"((?:^--.*\n)+)function entry\.(\w+)\((.*)\)((?:\n.*)*?)\nend", text, re.MULTILINE):
            comment, entry, taken, body = match.groups()
            assert "-- keys: " in comment, f"{name}: {entry} names no keys"
            assert ("-- args: " in comment) == ("args" in taken), f"{name}: {entry} names no arguments"
            # What a function inside of it returns stands on its own line, or deeper.
            returns = bool(re.search(r"\n  (if .* )?(  )*return [^\n]", re.sub(r"\n  local function .*end", "", body)))
            assert ("-- answer: " in comment) == returns, f"{name}: {entry} names no answer, or has none"
            entries.add(entry)
    assert entries == set(re.findall(r"entry\.(\w+)\(", "".join(SOURCES.values())))
    asked = {
        name
        for name, function in inspect.getmembers(protocol, inspect.isfunction)
        if "Question[" in str(inspect.signature(function).return_annotation)
    }
    assert entries == asked


def test_a_missing_linter_is_an_error_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lua_lint.main() == 1
    assert "apt-get install lua-check" in capsys.readouterr().err


def test_what_the_linter_finds_has_a_place() -> None:
    places = lua_lint.places()
    for name, text in SOURCES.items():
        assert places.count(f"workers/budget/lua/{name}:{len(text.splitlines())}") == 1
