"""The wheel's modules are the checkout's with imports renamed; what can't be renamed fails the build."""

import ast
import re
from pathlib import Path

import pytest

from deploy.wheel import DATA, PLACES, ROOT, NotMovable, make, make_anew, moved

FILES = sorted(path for room in PLACES for path in (ROOT / room).rglob("*.py"))
MODULES = frozenset({"workers.limits", "deploy.simulator"})


class Renamed(ast.NodeTransformer):
    """The same renaming, done to the tree in place of the text."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if not node.level and node.module and (room := node.module.split(".")[0]) in PLACES:
            node.module = PLACES[room] + node.module.removeprefix(room)
        return node


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_means_the_same(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    there = moved(text, path.name)
    assert ast.dump(ast.parse(there)) == ast.dump(Renamed().visit(ast.parse(text)))
    assert len(there.splitlines()) == len(text.splitlines())


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("from schemas import topology", "from ccxt_fleet import topology"),
        ("from schemas.config import load  # of schemas", "from ccxt_fleet.config import load  # of schemas"),
        (
            "from  workers.limits.costs import (\n    Rule,\n)",
            "from  ccxt_fleet.workers.limits.costs import (\n    Rule,\n)",
        ),
        ("import dispatcher.metrics as seen", "import ccxt_fleet.dispatcher.metrics as seen"),
        ("import os, deploy.up as up, sys", "import os, ccxt_fleet.deploy.up as up, sys"),
        (
            "def ä(): from deploy import up; from workers import lanes",
            "def ä(): from ccxt_fleet.deploy import up; from ccxt_fleet.workers import lanes",
        ),
        ("if é:\n\tfrom schemas import urls", "if é:\n\tfrom ccxt_fleet import urls"),
        ("from .schemas import a\nfrom .. import workers", None),
        ("from schemas_of_mine import a\nimport workersx", None),
        ('"""``from schemas import a`` and workers.limits."""\nx = "workers"', None),
        ('x = "from workers import a"\nlog("dispatcher.trial_after_s")', None),
        ('x = [command("workers.limits"), modules.module("deploy.simulator")]', None),
        ('y = [sys.executable, "-m", module("workers")]\nrun_module(modules.module("workers"))', None),
    ],
)
def test_what_is_renamed(text: str, there: str | None) -> None:
    assert moved(text, "a.py", MODULES) == (text if there is None else there)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nimport workers", "a.py:2: `import workers` binds 'workers'"),
        ("import os, schemas.urls", "a.py:1: `import schemas.urls` binds 'schemas'"),
        ("from \\\n schemas import urls", "a.py:1: `from`"),
        ('argv = [python, "-m", "dispatcher"]', "'dispatcher' names a module"),
        ('argv = (python, "-m", "workers" if real else x)', "'workers' names a module"),
        ('run_module("workers")', "'workers' names a module"),
        ('importlib.import_module(f"workers.{name}")', "'workers.' names a module"),
        ('x = {"worker": "workers.limits"}', "'workers.limits' names a module"),
        ('start(name="deploy.simulator")', "'deploy.simulator' names a module"),
    ],
)
def test_what_fails_the_build(text: str, said: str) -> None:
    with pytest.raises(NotMovable, match=re.escape(said)):
        moved(text, "a.py", MODULES)


def test_an_earlier_build_leaves_nothing_behind(tmp_path: Path) -> None:
    for room in PLACES:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    stale = tmp_path / "build" / "lib" / "ccxt_fleet" / "gone.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    make_anew(tmp_path)
    assert not stale.exists()
    assert (tmp_path / "build" / "tree" / "ccxt_fleet" / "workers" / "__init__.py").exists()


def test_no_folder_that_is_there_is_taken_for_the_wheel_s(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        make(tmp_path, tmp_path)
    assert tmp_path.exists()


def test_no_file_is_left_behind_for_its_ending() -> None:
    paths = [path for room in PLACES for path in (ROOT / room).rglob("*") if path.is_file()]
    left = {path.relative_to(ROOT).as_posix() for path in paths if path.suffix not in {".py", ".pyc", *DATA}}
    folders = (
        "deploy/compose",
        "deploy/images/",
        "deploy/kubernetes/",
        "deploy/prometheus/",
        "deploy/systemd/",
    )  # for operators: no module reads them
    for_tests = {"deploy/checkers.in", "deploy/checkers.txt"}
    assert {path for path in left if not path.startswith(folders)} - for_tests == {"deploy/setup.sh"}
