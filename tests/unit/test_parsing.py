"""Long JSON in steps is the same as in one."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workers.exchange import parsing
from workers.exchange.rows import Rows

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=30,
)


def loads(text: str) -> Any:
    return parsing.loads(text, json.JSONDecoder(), Rows(1000, 1000))


@settings(deadline=None)
@given(
    st.lists(VALUES, min_size=1) | st.dictionaries(st.text(max_size=5), VALUES, min_size=1),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :")]),
    st.integers(1, 40),
)
@example([1234567890, 12], None, (",", ":"), 5)
def test_it_reads_what_json_reads(value: Any, indent: int | None, separators: tuple[str, str], window: int) -> None:
    text = json.dumps(value, indent=indent, separators=separators)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "WINDOW", window)
        assert loads(text) == json.loads(text) == value
        assert loads(f" \n{text}\t") == value


@settings(deadline=None)
@given(VALUES, st.integers(0, 200), st.text('[]{},:"1a \\', max_size=3), st.integers(1, 40))
def test_it_refuses_what_json_refuses(value: Any, place: int, noise: str, window: int) -> None:
    text = json.dumps([value])
    text = text[: place % len(text)] + noise + text[place % len(text) + 1 :]
    try:
        wanted: Any = json.loads(text)
    except ValueError:
        wanted = ValueError
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "WINDOW", window)
        if wanted is ValueError:
            with pytest.raises(ValueError):
                loads(text)
        else:
            assert loads(text) == wanted


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_what_is_nested_too_deep_ends_in_an_error(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        loads(text)
