"""Which settings a ccxt class takes and what it calls, read from the class itself: no call is sent.

ccxt keeps no list of its options, of the parameters it sends, or of the settings it reads. All of them stand as texts
and names in the compiled code of its classes. What stands nowhere there is read by nobody.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from types import CodeType
from typing import Any, Final, NamedTuple

from msgspec import Struct

from ..limits.effect import Called
from ..limits.endpoints import endpoints
from .charged import ccxt

_NO_LETTERS: Final = re.compile(r"[^a-z0-9]")
_READS_ANSWERS: Final = ("parse", "safe_")


class Described(Struct, frozen=True):
    """One class of ccxt.

    Args:
        hostname: what stands for ``{hostname}`` in its URLs.
        urls: its tree of URLs.
        has: the names of all that it may have.
        tables: of its other tables of settings, those with names of their own.
        called: what it calls, with which parameters.
        words: all texts in its code, and in the code that all classes share.
        reads: the names that this code reads or writes.
        keys: the names that the class alone reads or writes: of an account's keys, those that it uses.
    """

    hostname: str
    urls: Mapping[str, Any]
    has: frozenset[str]
    tables: Mapping[str, Mapping[str, Any]]
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
    return Described(
        hostname=made.hostname or "",
        urls=made.urls,
        has=frozenset(made.has),
        tables={name: getattr(made, name) for name in ("fees", "limits", "requiredCredentials")},
        called=Called(
            own.sent(endpoints(made.api)), frozenset(word.casefold() for word in own.words), float(made.rateLimit)
        ),
        words=frozenset(own.words | own.described | shared.words | shared.described),
        reads=frozenset(own.names | shared.names),
        keys=frozenset(own.names),
    )


class _Function(NamedTuple):
    """What stands in one function, and in those within it."""

    words: frozenset[str]
    names: frozenset[str]


_NOTHING: Final = _Function(frozenset(), frozenset())


class _Code:
    """What stands in the code of classes.

    Args:
        elsewhere: code that is left out. ccxt copies methods of its base class into others under further names.
    """

    def __init__(self, elsewhere: Set[CodeType] = frozenset()) -> None:
        self._elsewhere = elsewhere
        self.seen = set[CodeType]()
        self.described = set[str]()  # the texts of `describe`
        self.names = set[str]()
        self._functions: dict[str, _Function] = {}

    @functools.cached_property
    def words(self) -> frozenset[str]:
        """All texts that are not only there to describe the exchange."""
        return frozenset[str]().union(*(function.words for function in self._functions.values()))

    def take(self, cls: type) -> None:
        for name, member in vars(cls).items():
            code = getattr(getattr(member, "__func__", member), "__code__", None)
            if not isinstance(code, CodeType) or name == "__init__" or code in self._elsewhere:
                continue
            self.seen.add(code)
            function = _read(code)
            self.names |= function.names
            if name == "describe":
                self.described |= function.words
            else:
                had = self._functions.get(name, _NOTHING)  # another class's, which this one may call as well
                self._functions[name] = _Function(had.words | function.words, had.names | function.names)

    def sent(self, keys: Iterable[str]) -> Mapping[str, frozenset[str] | None]:
        """What may be a parameter of a call to each endpoint: the texts in the methods that call it, in lower case.

        So are those in methods that these call, as `prepare_request`, unless they call endpoints of their own; and in
        those that call these: an order's trades are the account's trades with one parameter more. What reads answers
        sends nothing.
        """
        made = {_plain(key): key for key in keys}
        functions = {name: each for name, each in self._functions.items() if not name.startswith(_READS_ANSWERS)}
        users: dict[str, set[str]] = {}
        for name, function in functions.items():
            for used in function.names:
                users.setdefault(_plain(used), set()).add(name)
        senders = {key: users.get(method, set[str]()) for method, key in made.items()}
        sending = set[str]().union(*senders.values())
        found: dict[str, frozenset[str] | None] = {}
        for key, methods in senders.items():
            around = _reached(methods, lambda name: users.get(_plain(name), set()))
            around |= _reached(methods, lambda name: functions[name].names & functions.keys() - sending)
            words = frozenset[str]().union(*(functions[name].words for name in around))
            found[key] = frozenset(word.casefold() for word in words) if methods else None
        return found


def _reached(begin: Set[str], onward: Callable[[str], Set[str]]) -> set[str]:
    """What can be reached from some names, these among it."""
    reached, left = set(begin), set(begin)
    while left:
        new = onward(left.pop()) - reached
        reached |= new
        left |= new
    return reached


def _read(code: CodeType) -> _Function:
    inner = [_read(each) for each in code.co_consts if isinstance(each, CodeType)]
    return _Function(
        frozenset(_texts(code.co_consts)).union(*(each.words for each in inner)),
        frozenset(code.co_names).union(*(each.names for each in inner)),
    )


def _plain(name: str) -> str:
    """ccxt's method for ``public GET ticker/{pair}`` is `publicGetTickerPair`: letters and digits tell them apart."""
    return _NO_LETTERS.sub("", name.casefold())


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
