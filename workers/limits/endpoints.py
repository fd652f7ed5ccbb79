"""The endpoints of a ccxt class as keys of tables: ``<api> <METHOD> <path>``, from ccxt's tree `api`."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

_VERBS: Final = frozenset({"get", "post", "put", "delete", "patch", "head"})
# So many endpoints are named where a key matches none.
_NAMED: Final = 3


def endpoints(tree: Mapping[str, Any], api: tuple[str, ...] = ()) -> Iterator[str]:
    """All endpoints.

    Args:
        tree: ccxt's `api`, or a part of it: names to further trees, and HTTP verbs to paths.
        api: the names that lead to this part.
    """
    for name, below in tree.items():
        if name.lower() in _VERBS:
            paths = [below] if isinstance(below, str) else below
            yield from (f"{'.'.join(api)} {name.upper()} {path}" for path in paths)
        elif isinstance(below, Mapping):
            yield from endpoints(below, (*api, name))  # pyright: ignore[reportUnknownArgumentType]


def family(key: str) -> str:
    """The key for all paths of an endpoint's api and verb."""
    return f"{key.rpartition(' ')[0]} *"


def near(key: str, known: Collection[str]) -> list[str]:
    """The keys that somebody may have meant by one that matches no endpoint, the most likely first.

    Args:
        key: the key as it was written: ``public GET api/v3/depth``, ``public get *``.
        known: all endpoints.
    """
    if key.endswith("*"):
        pool = {family(each) for each in known}
    else:
        path = key.rpartition(" ")[2]
        ends = sorted((each for each in known if _ends(path, each.rpartition(" ")[2])), key=_length, reverse=True)
        if ends:
            longest = len(ends[0].rpartition(" ")[2])
            found = [each for each in ends if len(each.rpartition(" ")[2]) == longest]
            return sorted(found, key=lambda each: -_alike(key, each))[:_NAMED]
        pool = set(known)
    return sorted(pool, key=lambda each: (-_alike(key, each), each))[:_NAMED]


def _ends(written: str, path: str) -> bool:
    """Whether a path is the end of what was written, which may have its api and a filled placeholder in it."""
    pattern = re.sub(r"\\\{\w+\\\}", r"[^/]+", re.escape(path.strip("/")))
    return re.search(rf"(?:^|/){pattern}/?$", written.strip("/"), re.IGNORECASE) is not None


def _length(key: str) -> int:
    return len(key.rpartition(" ")[2])


def _alike(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, left.casefold(), right.casefold()).ratio()
