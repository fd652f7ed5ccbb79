"""docs/commands.md: each example prints what stands there, and each shape has the fields that are told."""

import calendar
import re
import shlex
from pathlib import Path

import msgspec
import pytest

from schemas.operator import output, shapes
from tests.support.commands import ROOT, command, here, leaves
from tests.support.fleet import Stand

TEXT = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
EXAMPLES = [
    (words, printed)
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for words, printed in re.findall(r"^\$ ccxt-fleet (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]
SHAPES = re.findall(r"<!-- (\w+) -->\n\| field \| meaning \|\n\| --- \| --- \|\n((?:\|.*\n)+)", TEXT)
DAYS, MONTHS = "|".join(calendar.day_abbr), "|".join(calendar.month_abbr[1:])
WRONG = """
[dispatcher]
strategy = "fast"
[lanes.okx]
weigth = 2
[groups.best]
exchanges = ["okx", "ftx"]
"""


def written(folder: Path) -> dict[str, str]:
    """The files that examples name, by their names."""
    [requests] = re.findall(r"^`requests.jsonl` is:\n\n```text\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)
    for name, text in {"wrong.toml": WRONG, "requests.jsonl": requests}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {path.name: str(path) for path in folder.iterdir()}


def plain(line: str) -> str:
    """A line without what is another one each time: numbers, days, hosts, words of a version, how wide columns are."""
    line = line.partition("; a cluster of several nodes")[0]  # said of RabbitMQ 3 alone
    line = re.sub(rf"\b({DAYS}), (\d+) ({MONTHS})\b", r"day, \2 month", line)
    line = re.sub(r"\b[\w.-]+-\d+\b(?!-)", "process", line)
    line = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12}\b", "digest", line)
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.,:-]*( [\d:]+)?", "#", line)).strip()


@pytest.mark.parametrize(("words", "printed"), EXAMPLES, ids=[words for words, _ in EXAMPLES])
async def test_an_example(words: str, printed: str, stand: Stand, tmp_path: Path) -> None:
    dead = await stand.client.channel.get_queue("fleet.dead", ensure=False)
    await dead.purge()
    results = await stand.client.channel.get_queue("fleet.results", ensure=False)
    await results.purge()
    files = written(tmp_path)
    argv = [files.get(word, word) for word in shlex.split(words)]
    told = [line for line in map(plain, printed.splitlines()) if line]

    async def missing() -> list[str]:
        for lane in stand.fleet.lanes:
            await stand.client.ask("fetch_ticker", {"symbol": "BTC/USDT"}, exchanges=[lane])
        done = await command(*argv, broker_url=stand.url, redis_url=stand.redis.url)
        assert done.code in {output.OK, output.WRONG}, done
        said = [plain(line) for line in (done.out + done.err).splitlines()]
        return [line for line in told if line not in said]

    # What was asked is soon in what dispatchers say; a window of a budget may end just before the command looks.
    left: list[str] = []
    for _ in range(10):
        if not (left := await missing()):
            return
    assert left == []


@pytest.mark.parametrize(("name", "table"), SHAPES, ids=[name for name, _ in SHAPES])
def test_a_shape_has_the_fields_that_are_told(name: str, table: str) -> None:
    told = [field for row in table.splitlines() for field in re.findall(r"`(\w+)`", row.split("|")[1])]
    fields = [field.name for field in msgspec.structs.fields(getattr(shapes, name))]
    assert sorted(told) == sorted(fields)


def test_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", TEXT, re.MULTILINE)
    assert {int(code): what.replace("\\|", "|") for code, what in rows} == output.EXIT_CODES


@pytest.mark.parametrize("words", [words for words, _ in leaves()], ids=" ".join)
def test_every_command_is_told(words: tuple[str, ...]) -> None:
    heading = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    assert any(words[0] in re.split(r"[ ,]+", each) for each in heading)
    assert " ".join(words) in TEXT


def test_what_all_commands_have() -> None:
    for words, found in leaves():
        options = {option for each in found.params for option in each.opts}
        if words[0] not in {"definitions", "up", "dispatcher", "worker", "run"}:
            assert "--json" in options, words
    assert "FLEET_TRACEBACK" in TEXT
    assert here("--help").code == output.OK


README = re.search(r"From a shell.*?```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("line", README[1].splitlines() if README else [])
async def test_a_command_of_the_readme(line: str, stand: Stand) -> None:
    words = shlex.split(line, comments=True)
    assert words.pop(0) == "ccxt-fleet"
    more = ["--json", "--times", "1"] if words == ["top"] else []
    done = await command(*words, *more, broker_url=stand.url, redis_url=stand.redis.url)
    assert done.code == output.OK or words == ["doctor"], done
    assert done.out
