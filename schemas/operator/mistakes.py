"""All mistakes of a configuration at once. A service stops at the first one.

Each mistake names its key. The key is taken out, and what is left is looked at again, until nothing is wrong or nothing
can be taken out any more.
"""

import asyncio
import copy
import os
import re
import tomllib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from .. import config
from ..errors import ConfigError

WorkerCheck: TypeAlias = Callable[[config.Config], Coroutine[Any, Any, None]]

# More than anybody would read; a file that has more is no configuration.
MOST: Final = 200
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")
_ENVIRONMENT: Final = re.compile(r"(FLEET_\w+) in the environment")


def mistakes(path: Path, check_as_worker: WorkerCheck | None) -> list[tuple[str, str]]:
    """What is wrong with a configuration: the key, and what would work; empty where a service would start.

    Args:
        path: the file.
        check_as_worker: what a worker checks besides, where it is there.
    """
    try:
        left = tomllib.loads(path.read_bytes().decode())
    except (OSError, ValueError, RecursionError) as error:
        why = f"can't be read: {error.strerror}" if isinstance(error, OSError) else f"not TOML: {error}"
        return [(path.name, why)]
    found: list[str] = []
    environment, gone = dict(os.environ), set[str]()
    while len(found) < MOST and (said := _said(path, left, environment, check_as_worker)):
        if said not in found and not any(f"{name!r}" in said for name in gone):
            found.append(said)
        if named := _ENVIRONMENT.match(said):
            environment.pop(named[1], None)
        elif not (name := _take_out(left, said.removeprefix(f"{path}: "))):
            break
        else:
            gone.add(name)
    return [_parted(path, said) for said in found]


def _parted(path: Path, said: str) -> tuple[str, str]:
    """The key that a mistake names, and the rest; the file where it names none."""
    said = said.removeprefix(f"{path}: ")
    where, _, what = said.partition(": ")
    names_one = _ENVIRONMENT.fullmatch(where) or " " not in where.partition('"')[0]
    return (where, what) if what and names_one else (path.name, said)


def _said(path: Path, raw: dict[str, Any], environment: dict[str, str], check_as_worker: WorkerCheck | None) -> str:
    """The first mistake, empty for none."""
    try:
        fleet = config.checked(path, copy.deepcopy(raw), environment)
        if check_as_worker is not None:
            asyncio.run(check_as_worker(fleet))
    except ConfigError as error:
        return str(error)
    return ""


def _take_out(raw: dict[str, Any], said: str) -> str:
    """Takes out what a mistake names, so that the next one shows; returns the key's name, empty where there is none.

    A lane stays, with its defaults: groups and accounts may name it. If its name itself is wrong, it goes too.
    """
    where, _, what = said.partition(": ")
    unknown = _UNKNOWN.search(said)
    if unknown and "unknown field" in where:
        where = ""  # at the top of the file
    keys = _keys(raw, re.sub(r"\[\d*\.*\]", "", where))
    if unknown:
        keys.append(unknown[1])
    if not keys:
        return ""
    if keys[0] == "groups":  # nothing refers to one, and it is nothing without what it names
        keys = keys[:2]
    table: Any = raw
    for key in keys[:-1]:
        table = table[key]
    last = keys[-1]
    if not isinstance(table, dict) or last not in table:
        return ""
    if keys[0] == "lanes" and len(keys) == 2 and table[last] not in ({}, None) and "expected <exchange>" not in what:
        table[last] = {}
    else:
        del table[last]
    return last


def _keys(table: Any, where: str) -> list[str]:
    """The keys of a dotted path, as far as they are there; keys may have dots themselves, and stand in quotes."""
    if not isinstance(table, dict) or not where:
        return []
    there = cast("dict[str, Any]", table)
    fitting: list[tuple[str, str]] = []
    for key in there:
        for written in (key, f'"{key}"'):
            rest = where[len(written) :]
            if where.startswith(written) and (not rest or rest[0] in ". "):
                fitting.append((key, rest))
    if not fitting:
        return []
    key, rest = min(fitting, key=_rest)
    return [key, *_keys(there[key], rest.lstrip("."))]


def _rest(fitting: tuple[str, str]) -> int:
    """How much of the path a key leaves: the one that leaves least is meant."""
    return len(fitting[1])
