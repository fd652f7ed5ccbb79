"""The build back end: makes one wheel, whose only package is `ccxt_fleet`, of the checkout's four folders.

``pip wheel .`` calls the functions below (PEP 517). `make` lays the folders out below one name, in ``build/tree``, and
setuptools packs that. Only imports change on the way, at the places that the syntax tree gives. A module that is named
by a string can't be found so surely: it has to go through `schemas.runtime.modules`, or the build fails.

The source distribution carries the folders as they are, so that a wheel built of it has the same files. There is no
editable install: the checkout runs as it stands.
"""

import ast
import importlib
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

# setuptools has no types for it.
build_meta: Any = importlib.import_module("setuptools.build_meta")

ROOT: Final = Path(__file__).resolve().parents[1]
BUILD: Final = ROOT / "build"
NAME: Final = "ccxt_fleet"
PLACES: Final[Mapping[str, str]] = {
    "schemas": NAME,
    "dispatcher": f"{NAME}.dispatcher",
    "workers": f"{NAME}.workers",
    "deploy": f"{NAME}.deploy",
}
# Modules with a second, shorter name for programs, by that name; a whole one, or what it is that programs take of it.
SHORT: Final[Mapping[str, tuple[str, str | None]]] = {
    "ccxt": ("workers.dropin.ccxt", None),
    "ccxt_async": ("workers.dropin.ccxt_async", None),
    "ccxt_pro": ("workers.dropin.ccxt_pro", None),
    "direct": ("workers.direct", "charged"),
}
# What goes into the wheel beside Python's files; `pyproject.toml` says so to setuptools too.
DATA: Final = frozenset({".toml", ".lua", ".json", ".typed"})
# Of use in a checkout alone: this file, and what `rabbitmqctl` reads (``ccxt-fleet definitions`` writes it).
LEFT_OUT: Final = frozenset({"deploy/wheel.py", "deploy/rabbitmq/definitions.json"})
# Functions whose first argument is the name of a module.
_IMPORTING: Final = frozenset({"import_module", "__import__", "run_module", "find_spec", "resolve_name", "files"})
# Those of `schemas.runtime.modules`, whose first argument is its name in the checkout; `processes.parser` hands it on.
_RENAMING: Final = frozenset({"module", "command", "parser"})

get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
get_requires_for_build_wheel = build_meta.get_requires_for_build_wheel


class NotMovable(Exception):
    """A line that would not mean the same in the wheel."""


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Packs the folders as they are."""
    shutil.rmtree(BUILD, ignore_errors=True)
    (BUILD / "tree").mkdir(parents=True)  # where setuptools writes what it knows of the packages
    return str(build_meta.build_sdist(sdist_directory, config_settings))


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Packs what `make` makes."""
    make_anew(ROOT)
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    """Writes the wheel's metadata, which name its packages."""
    make_anew(ROOT)
    return str(build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings))


def make_anew(checkout: Path) -> None:
    """Lays out the wheel's files in the checkout's ``build/tree``."""
    shutil.rmtree(checkout / "build", ignore_errors=True)  # setuptools would pack what an earlier build left there
    make(checkout, checkout / "build" / "tree")


def make(source: Path, tree: Path) -> None:
    """Lays out the wheel's files.

    Args:
        source: the checkout.
        tree: where `ccxt_fleet` is to be, a folder that is made here.

    Raises:
        FileExistsError: the folder is there already.
        NotMovable: a line that can't be moved; names file and line.
    """
    tree.mkdir(parents=True)
    modules = frozenset(_modules(source))
    for folder, place in PLACES.items():
        for path in sorted((source / folder).rglob("*")):
            name = path.relative_to(source).as_posix()
            if path.suffix not in {".py", *DATA} or name in LEFT_OUT:
                continue
            target = tree.joinpath(*place.split("."), *path.relative_to(source / folder).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".py":
                target.write_text(moved(path.read_text(encoding="utf-8"), name, modules), encoding="utf-8")
            else:
                shutil.copyfile(path, target)
    for short, (module, has) in SHORT.items():
        if module in modules:
            text = f'"""What programs take from `{module}`."""\n\n'
            if has is None:
                folder, _, name = module.rpartition(".")
                text += f"import sys\n\nfrom .{folder} import {name}\n\nsys.modules[__name__] = {name}\n"
            else:
                text += f"from .{module} import {has} as {has}\n"
            (tree / NAME / f"{short}.py").write_text(text, encoding="utf-8")


def _modules(source: Path) -> Iterator[str]:
    """The names of all modules and packages in the checkout's folders."""
    for folder in PLACES:
        for path in (source / folder).rglob("*.py"):
            yield ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")


def moved(text: str, name: str, modules: Collection[str] = ()) -> str:
    """A module's source with its imports of our folders renamed; nothing else in it changes.

    Args:
        text: the source.
        name: the file's, for errors.
        modules: the names of our modules; a string that is one of them, with a dot in it, names that module.

    Raises:
        NotMovable: see `make`.
    """
    tree = ast.parse(text, name)
    for constant in _strings(tree, modules):
        raise NotMovable(
            f"{name}:{constant.lineno}: {constant.value!r} names a module: give it to schemas.runtime.modules"
        )
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    # From the end, so that the places before stay where they are.
    for number, column, folder in sorted(_imports(tree, lines, name), reverse=True):
        line = lines[number - 1]
        lines[number - 1] = line[:column] + PLACES[folder].encode() + line[column + len(folder) :]
    return b"".join(lines).decode()


def _imports(tree: ast.AST, lines: Sequence[bytes], name: str) -> Iterator[tuple[int, int, str]]:
    """Where our folders' names stand in absolute imports: line, column in bytes (as `ast` counts), name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and (folder := _folder(node.module)):
            begun = re.match(rb"from[ \t]+\b", lines[node.lineno - 1][node.col_offset :])
            if begun is None:
                raise NotMovable(f"{name}:{node.lineno}: `from` and the module's name belong on one line")
            yield node.lineno, node.col_offset + begun.end(), folder
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if folder := _folder(alias.name):
                    if alias.asname is None:
                        raise NotMovable(f"{name}:{alias.lineno}: `import {alias.name}` binds {folder!r}: add `as`")
                    yield alias.lineno, alias.col_offset, folder


def _strings(tree: ast.AST, modules: Collection[str]) -> Iterator[ast.Constant]:
    """Strings that name one of our modules where nothing renames it."""
    renamed: set[ast.AST] = set()
    for node in ast.walk(tree):
        named: list[ast.expr] = []
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in _RENAMING:
                renamed.update(node.args[:1])
            elif called in _IMPORTING:
                named = node.args[:1]
        elif isinstance(node, (ast.List, ast.Tuple)):
            pairs = zip(node.elts, node.elts[1:], strict=False)
            named = [word for before, word in pairs if isinstance(before, ast.Constant) and before.value == "-m"]
        for word in named:
            # Also what an f-string begins with, and the branches of a conditional expression.
            parts = () if isinstance(word, ast.Call) else ast.walk(word)
            yield from (part for part in parts if isinstance(part, ast.Constant) and _folder(str(part.value)))
        if isinstance(node, ast.Constant) and node not in renamed and "." in str(node.value) and node.value in modules:
            yield node


def _folder(module: str | None) -> str | None:
    folder = (module or "").partition(".")[0]
    return folder if folder in PLACES else None
