"""What answers mean is data: how tables are read, whom they speak for, and how wrong ones are refused."""

from pathlib import Path

import ccxt  # pyright: ignore[reportMissingTypeStubs]
import pytest

from schemas.errors import ConfigError
from workers.exchange.signals import limit_signal
from workers.limits.answers import Answer, Answers, Means, PauseHeader
from workers.limits.tables import Tables, shipped

NOW_S = 1_800_000_000.0
# A table without limits: its calls are paced by ccxt.
GOOD = """
exchange = "x"
checked = 2026-11-28
same_limits = ["y"]
same_answers = ["z"]
[pause_headers]
"x-left" = { gives = "seconds", source = "s" }
[[answers]]
means = "limit"
fields = ["code"]
equals = ["7"]
pause_s = 3
source = "s"
"""


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("equals =", "eqals =", ["answers[0]", "eqals", "equals", "contains"]),
        ('means = "limit"', 'means = "bans"', ["answers[0].means", "bans"]),
        ("pause_s = 3\n", "", ["answers[0].pause_s", "expected for `limit`"]),
        ("pause_s = 3", "pause_s = 3\nleast_s = 4", ["answers[0].pause_s", "between"]),
        ("pause_s = 3", "pause_s = 3\nmost_s = 2", ["answers[0].pause_s", "between"]),
        (
            'means = "limit"\nfields = ["code"]\nequals = ["7"]\npause_s = 3',
            'means = "key"\nstatus = 403\nmost_s = 2',
            ["least_s, most_s", "alone"],
        ),
        ("pause_s = 3", "pause_s = 0", ["answers[0].pause_s"]),
        ('means = "limit"', 'means = "clock"', ["answers[0].pause_s", "nothing else"]),
        ('fields = ["code"]\n', "", ["answers[0].fields", "`equals`"]),
        ('equals = ["7"]', "", ["answers[0].contains", "at least one"]),
        ('equals = ["7"]', "status = 403", ["answers[0].contains", "expected a text"]),
        ('equals = ["7"]', 'equals = [""]', ["answers[0].equals"]),
        ('equals = ["7"]', 'equals = ["7"]\ncontains = ["a"]', ["answers[0].contains", "nothing beside"]),
        ('source = "s"\n', "", ["answers[0]", "source"]),
        ('"x-left"', '"X-Left"', ["pause_headers.X-Left", "lower case"]),
        ("gives =", "give =", ["pause_headers", "give", "gives"]),
        ('"seconds"', '"minutes"', ["pause_headers", "minutes"]),
        ('same_limits = ["y"]', 'same_limits = ["z"]', ["same_answers[0]", "z has x.toml"]),
        ('same_limits = ["y"]', 'same_limits = ["x"]', ["same_limits[0]", "x has x.toml"]),
        ("[pause_headers]", 'refusal_pauses = "lane"\n[pause_headers]', ["refusal_pauses", "lane"]),
        ("[pause_headers]", 'counts = "x"\n[pause_headers]', ["counts", "x"]),
        ("[pause_headers]", '[endpoints]\n"public GET y" = []\n[pause_headers]', ["buckets", "endpoints"]),
        ("[pause_headers]", '[[default]]\nbucket = "a"\n[pause_headers]', ["buckets", "expected"]),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path: Path, old: str, new: str, where: list[str]) -> None:
    file = tmp_path / "x.toml"
    file.write_text(GOOD)
    Tables(tmp_path)
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        Tables(tmp_path)
    for part in [str(file), *where]:
        assert part in str(caught.value)


def test_a_table_speaks_for_the_ids_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(GOOD)
    tables = Tables(tmp_path)
    assert [tables.limits_of(name) for name in ("x", "y", "z", "other")] == ["x", "x", "z", "other"]
    # One without a table is read in the words of all tables.
    for name in ("x", "y", "z", "other"):
        pause = limit_signal(tables.answers(name), 200, {"X-Left": "9"}, '{"code": "7"}', NOW_S)
        assert pause is not None
        assert (pause.seconds, pause.told) == (9, True)


def test_what_only_one_exchange_means_by_a_status_is_read_there_alone() -> None:
    tables = shipped()
    signals = {name: limit_signal(tables.answers(name), 403, {}, "<html>", NOW_S) for name in ccxt.exchanges}
    assert {name for name, signal in signals.items() if signal} == {
        *("binance", "binancecoinm", "binanceus", "binanceusdm", "tokocrypto")
    }


@pytest.mark.parametrize(
    ("exchange", "status", "body", "seconds"),
    [
        ("bitstamp", 400, '{"status":"error","reason":"Request rate limit exceeded","code":"400.002"}', 2),
        ("bitso", 420, '{"success":false,"error":{"code":"0200","message":"Too many requests, retry in 60 s"}}', 60),
        ("luno", 403, "Too Many Requests", 2),
        ("zaif", 200, '{"success":0,"error":"time wait restriction, please try later."}', 2),
        ("coincheck", 200, '{"result":"error","error_code":"1","error_msg":"Too many requests. Wait 5 s"}', 5),
        ("zaif", 200, '{"message":"Rate limit exceeded","retry_after":30}', 30),
        ("zaif", 200, '{"trades":[{"comment":"too many requests"}]}', None),
        ("zaif", 200, '{"error":"","data":"rate limit exceeded"}', None),
        # At 200 it may be data, and where a table knows the exchange its entries say what is a limit.
        ("bitstamp", 200, '{"title":"Too many requests"}', None),
        ("bitstamp", 400, '{"reason":"Too many decimals"}', None),
        ("bybit", 400, '{"reason":"rate limit exceeded"}', None),
    ],
)
def test_an_exchange_without_a_table_may_say_429_in_words(
    exchange: str, status: int, body: str, seconds: float | None
) -> None:
    pause = limit_signal(shipped().answers(exchange), status, {}, body, NOW_S)
    assert (pause and pause.seconds) == seconds


@pytest.mark.parametrize("exchange", shipped().names)
def test_every_entry_is_found_by_what_it_looks_for(exchange: str) -> None:
    """And so by the words that bodies are searched for first, in any letter case."""
    tables = shipped()
    answers = tables.answers(exchange)
    for entry in tables.entries(exchange):
        for text in entry.texts or ("",):
            for said in (text, text.upper(), text.lower()):
                behind = "".join(f" {word}" for word in entry.followed_by[:1])
                bodies = [f'{{"{name}": "{said}", "msg": "{behind}"}}' for name in entry.fields] or [f"<{said}>"]
                if entry.contains and entry.fields:
                    bodies += [f'{{"{name}":["x {said} y"]}}' for name in entry.fields]
                for body in bodies:
                    assert answers.find(entry.means, entry.status or 200, body), (entry, body)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('{"code":-7}', True),
        ('{"code" : "-7","msg":""}', True),
        ('{"code":-70}', False),
        ('{"code":-7.5}', False),
        ('{"price":-7,"code":0}', False),
        ('{"error":["E: too fast, until 1"]}', True),
        ('{"error":[],"result":"too fast"}', False),
        ('{"error":"way TOO FAST"}', True),
    ],
)
def test_texts_are_found_in_their_fields_alone(body: str, found: bool) -> None:
    answers = Answers(
        [
            Answer(means="limit", fields=("code",), equals=("-7",), pause_s=1, source="s"),
            Answer(means="limit", fields=("error",), contains=("too fast",), pause_s=1, source="s"),
        ]
    )
    assert (answers.find("limit", 200, body) is not None) == found
    others: tuple[Means, ...] = ("clock", "symbol", "key")
    assert not any(answers.find(means, 200, body) for means in others)


@pytest.mark.parametrize(
    ("gives", "value", "seconds"), [("seconds", 9, 9), ("milliseconds", 9_000, 9), ("instant", NOW_S + 9, 9)]
)
def test_headers_that_name_the_time(gives: str, value: float, seconds: float) -> None:
    header = PauseHeader(gives=gives, source="s")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pause = limit_signal(Answers((), {"x-left": header}), 429, {"X-Left": str(value)}, "", NOW_S)
    assert pause is not None
    assert pause.seconds == pytest.approx(seconds)
