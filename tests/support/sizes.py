"""The size check of ``make check``: no function above 60 lines, no file above 450, in Python and Lua alike.

``python -m tests.support.sizes`` prints each offender with its size, and exits with 1 if there is one. A function is
counted from its `def` (without decorators) to its last line, docstring and nested functions included. A file that a
program wrote may be longer.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("schemas", "dispatcher", "workers", "deploy", "tests")
MOST_LINES: Final = {"file": 450, "function": 60}
# Ends the docstring of what a program wrote.
_WRITTEN: Final = re.compile(r'""".* Written by `[\w/]+\.py`\."""\n')
_LUA_FUNCTION: Final = re.compile(r"( *)(?:local |return )?(?:function\b ?([\w.:]*)|([\w.]+) *= *function\b)")


class Size(NamedTuple):
    """A file or function and its lines; `name` is the path in the checkout, with ``:<function>`` behind it."""

    kind: str
    name: str
    lines: int

    @property
    def over(self) -> bool:
        """Whether it is above the limit."""
        return self.lines > MOST_LINES[self.kind]


def files(root: Path = ROOT) -> list[Path]:
    """Every Python and Lua file of ours, in all sub-folders."""
    return sorted(path for folder in FOLDERS for path in (root / folder).rglob("*") if path.suffix in {".py", ".lua"})


def sizes(path: Path, root: Path = ROOT) -> Iterator[Size]:
    """The size of a file, and of each function in it."""
    name, text = str(path.relative_to(root)), path.read_text(encoding="utf-8")
    if not _WRITTEN.match(text):
        yield Size("file", name, len(text.splitlines()))
    for function, lines in _of_python(text) if path.suffix == ".py" else _of_lua(text):
        yield Size("function", f"{name}:{function}", lines)


def _of_python(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def _of_lua(text: str) -> Iterator[tuple[str, int]]:
    """Functions that begin a line; each ends with the first `end` that is indented as far as its first line."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if (begun := _LUA_FUNCTION.match(line)) and not re.search(r"\bend\b", line):
            closing = re.compile(rf"{begun[1]}end\b")
            rest = (after for after in range(number + 1, len(lines)) if closing.match(lines[after]))
            yield begun[2] or begun[3] or f"line {number + 1}", next(rest, len(lines) - 1) - number + 1


def main() -> int:
    """Prints what is too long; the exit code."""
    over = [size for path in files() for size in sizes(path) if size.over]
    for size in over:
        print(f"{size.name}: a {size.kind} of {size.lines} lines; at most {MOST_LINES[size.kind]}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
