"""The page of limits says what the tables say."""

from pathlib import Path

from workers.limits.page import page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "limits.md"


def test_the_page_is_written_from_the_tables() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: python -m workers.limits.page > docs/limits.md"
