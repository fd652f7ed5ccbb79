"""The size check finds whatever is too long in any folder, and no check skips a folder."""

import os
import tomllib
from pathlib import Path

from tests.support import sizes

ROOT = sizes.ROOT
OURS = ("schemas", "dispatcher", "workers", "deploy", "tests")


def walked(*folders: str) -> dict[str, list[str]]:
    """Names of the Python and Lua files in every folder that has some, found in another way than by a glob."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for at, _, names in os.walk(ROOT / folder):
            if ours := sorted(name for name in names if name.endswith((".py", ".lua"))):
                found[Path(at).relative_to(ROOT).as_posix()] = ours
    return found


def over(root: Path) -> list[str]:
    return [f"{size.name} {size.lines}" for path in sizes.files(root) for size in sizes.sizes(path, root) if size.over]


def test_every_file_of_every_folder_is_measured() -> None:
    measured: dict[str, list[str]] = {}
    for path in sizes.files():
        measured.setdefault(path.parent.relative_to(ROOT).as_posix(), []).append(path.name)
    assert measured == walked(*OURS)
    assert {"schemas/runtime", "workers/budget/lua", "deploy/simulator/exchanges", "tests/support"} <= measured.keys()


def test_what_is_too_long_is_named_with_its_size(tmp_path: Path) -> None:
    deep = tmp_path / "workers" / "budget" / "lua"
    deep.mkdir(parents=True)
    body = "    x = 1\n"
    (deep / "a.py").write_text(
        f"def fits():\n{59 * body}\n\nclass A:\n    async def long(self):\n{60 * (4 * ' ' + body)}"
    )
    (deep / "b.lua").write_text(f"local function long()\n{59 * body}end\n\nfunction t.fits()\n{58 * body}end\n")
    (deep / "c.lua").write_text(f"t.long = function(a)\n  if a then\n  end\n{58 * body}end\nfunction t.one() end\n")
    (deep / "d.py").write_text("x = 1\n" * 450)
    (deep / "e.lua").write_text("x = 1\n" * 451)
    lua = "workers/budget/lua"
    assert over(tmp_path) == [
        f"{lua}/a.py:long 61",
        f"{lua}/b.lua:long 61",
        f"{lua}/c.lua:t.long 62",
        f"{lua}/e.lua 451",
    ]


def test_the_import_contracts_see_every_folder() -> None:
    """import-linter follows packages: it would leave out a folder without ``__init__.py``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    roots: list[str] = project["importlinter"]["root_packages"]
    assert set(roots) == set(OURS) - {"tests"}
    without = {folder for folder, names in walked(*roots).items() if "__init__.py" not in names}
    assert {folder for folder in without if any(name.endswith(".py") for name in walked(folder)[folder])} == set()
    contract = next(each for each in project["importlinter"]["contracts"] if "contract" in each["name"])
    modules = {f"schemas.{name.removesuffix('.py')}" for name in walked("schemas")["schemas"]}
    assert set(contract["source_modules"]) == modules - {"schemas.__init__", "schemas.__main__"}


def test_the_types_are_checked_in_every_folder() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert set(project["mypy"]["files"]) == set(project["pyright"]["include"]) == set(OURS)


def test_pages_and_tables_are_where_their_checks_look() -> None:
    """Those glob one folder: a page or a table in a folder below it would not be checked.

    `test_public_urls` checks the list of POSTs.
    """
    pages = {at for at, _, names in os.walk(ROOT / "docs") if any(name.endswith(".md") for name in names)}
    assert pages == {str(ROOT / "docs")}
    tables = {path.parent for path in (ROOT / "workers").rglob("*.toml") if path.name != "read_by_post.toml"}
    assert tables == {ROOT / "workers" / "limits"}
