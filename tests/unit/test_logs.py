"""A log line is one event with its values, and nothing from outside can forge one."""

import logging
import sys

import pytest

from schemas.runtime.logs import KeyValueFormatter


def line(message: str = "lane_state", exc_info: bool = False, **extra: object) -> str:
    error = sys.exc_info() if exc_info else None
    record = logging.LogRecord("dispatcher.service", logging.INFO, __file__, 1, message, (), error)
    record.created, record.msecs = 1_767_268_800.123, 123.0
    record.__dict__.update(extra)
    return KeyValueFormatter().format(record)


def test_a_line_is_the_event_and_its_pairs() -> None:
    assert line(lane="okx", state="offline") == (
        "2026-01-01T12:00:00.123Z INFO dispatcher.service lane_state lane=okx state=offline"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [("", "''"), ("two words", "'two words'"), ("a\nb", "'a\\nb'"), (5, "5"), (None, "None"), ("x=1", "x=1")],
)
def test_a_value_never_breaks_the_line(value: object, shown: str) -> None:
    assert line(value=value).endswith(f" value={shown}")


@pytest.mark.parametrize("value", ["a\rb", "a\tb", "a\x1b[31mb", "a\x00b", "a\u2028b", "a\x85b"], ids=ascii)
def test_what_came_from_outside_cannot_forge_a_line(value: str) -> None:
    shown = line(request_id=value)
    assert value not in shown
    assert len(shown.splitlines()) == 1


def test_a_traceback_stands_below() -> None:
    text = ""
    try:
        int("broken")
    except ValueError:
        text = line(exc_info=True)
    first, *below = text.splitlines()
    assert first.endswith("lane_state")
    assert below[-1].startswith("ValueError: ")
