"""What a ccxt class can be told and what it calls, read from the class itself: no call is sent.

ccxt keeps no list of its options, of the parameters it sends, or of the settings it reads. All of them stand as texts
and names in the compiled code of its classes. What stands nowhere there is read by nobody.
"""

import functools
from collections.abc import Iterator, Mapping, Set
from types import CodeType
from typing import Any

from msgspec import Struct

from ..limits.effect import Called
from ..limits.endpoints import endpoints
from .charged import ccxt


class Described(Struct, frozen=True):
    """One class of ccxt.

    Args:
        hostname: what stands for ``{hostname}`` in its URLs.
        urls: its tree of URLs.
        has: the names of all that it may have.
        called: what it calls, with which parameters.
        words: all texts in its code, and in the code that all classes share.
        reads: the names that this code reads or writes.
        keys: the names that the class alone reads or writes: of an account's keys, those that it uses.
    """

    hostname: str
    urls: Mapping[str, Any]
    has: frozenset[str]
    called: Called
    words: frozenset[str]
    reads: frozenset[str]
    keys: frozenset[str]


@functools.cache
def described(exchange: str) -> Described:
    """What an exchange's class has.

    Args:
        exchange: an id that ccxt knows.
    """
    made: Any = getattr(ccxt, exchange)()
    shared = _shared()
    own = _Code(shared.seen)
    for cls in type(made).__mro__:
        if cls not in ccxt.Exchange.__mro__:
            own.take(cls)
    keys = frozenset(endpoints(made.api))
    return Described(
        hostname=made.hostname or "",
        urls=made.urls,
        has=frozenset(made.has),
        called=Called(keys, frozenset(own.sent), float(made.rateLimit)),
        words=frozenset(own.words | own.described | shared.words | shared.described),
        reads=frozenset(own.names | shared.names),
        keys=frozenset(own.names),
    )


class _Code:
    """What stands in the code of classes.

    Args:
        elsewhere: code that is left out. ccxt copies methods of its base class into others under further names.
    """

    def __init__(self, elsewhere: Set[CodeType] = frozenset()) -> None:
        self._elsewhere = elsewhere
        self.seen = set[CodeType]()
        self.words = set[str]()
        self.described = set[str]()  # the texts of `describe`
        self.names = set[str]()

    @property
    def sent(self) -> set[str]:
        """What may be the name of a parameter: a text that is not only there to describe the exchange."""
        return {word.casefold() for word in self.words}

    def take(self, cls: type) -> None:
        for name, member in vars(cls).items():
            code = getattr(getattr(member, "__func__", member), "__code__", None)
            if isinstance(code, CodeType) and name != "__init__" and code not in self._elsewhere:
                self.seen.add(code)
                self._take(code, self.described if name == "describe" else self.words)

    def _take(self, code: CodeType, words: set[str]) -> None:
        self.names.update(code.co_names)
        words.update(_texts(code.co_consts))
        for each in code.co_consts:
            if isinstance(each, CodeType):
                self._take(each, words)


@functools.cache
def _shared() -> _Code:
    code = _Code()
    for cls in ccxt.Exchange.__mro__:
        code.take(cls)
    return code


def _texts(constants: tuple[object, ...]) -> Iterator[str]:
    for each in constants:
        if isinstance(each, str):
            yield each
        elif isinstance(each, tuple):  # the keys of a dict
            yield from _texts(each)  # pyright: ignore[reportUnknownArgumentType]
