"""The tables: one file, ``limits/<exchange>.toml``, holds all that is peculiar to an exchange.

Its limits and what calls cost (`costs`), what its answers mean (`answers`), and which other ids of ccxt it stands for.
A table may leave its limits out; its calls are then paced as ccxt's own ``rateLimit`` would pace them.
"""

import datetime
import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Struct

from schemas.errors import ConfigError

from .answers import IN_WORDS, OTHER_PAUSE_HEADERS, SHARED, Answer, Answers, PauseHeader, Reader

LIMITS: Final = Path(__file__).parent


class Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file as it stands; `buckets`, `default` and `endpoints` are checked by `costs.load`.

    Args:
        exchange: the ccxt id, which is also the file's name.
        checked: when somebody last compared it with what the exchange publishes.
        same_limits: other ccxt ids of the same hosts, or of hosts with the same limits: one budget serves them all.
        same_answers: ccxt ids whose answers mean the same, but whose limits are their own: they have no table, or one
            that says nothing of answers.
        same_apis: names that the classes of `same_limits` have for an api, each with the one that `endpoints` has.
        not_served: apis that ccxt's class has by inheritance, and the exchange has not: no call to them is sent.
        apart: other ccxt ids of the same hosts or domain that share nothing with this one, each with the reason.
        refusal_pauses: what a refusal speaks of: every call from the ``address``, or the refused ``endpoint`` alone.
        pause_headers: headers that say how long to send no call, by their names in lower case.
        counts: the reader of the exchange's own counts in its headers.
        market_aliases: fields of the exchange's data on a market that hold another name of it, for `Bucket.per`.
        market_families: fields that hold the name of a group of markets, for the same.
        answers: what its answers mean (`Answer`).
        buckets: its limits (`costs.Bucket`), by name.
        default: what a call costs that `endpoints` does not name (`costs.Rule`).
        endpoints: what calls cost, by ``<api> <METHOD> <path>``.
        misreported: endpoints whose answers report a wrong count.
    """

    exchange: str
    checked: datetime.date
    same_limits: tuple[str, ...] = ()
    same_answers: tuple[str, ...] = ()
    same_apis: dict[str, str] = {}
    not_served: tuple[str, ...] = ()
    apart: dict[str, str] = {}
    refusal_pauses: Literal["address", "endpoint"] = "address"
    pause_headers: dict[str, PauseHeader] = {}
    counts: Reader | None = None
    market_aliases: tuple[str, ...] = ()
    market_families: tuple[str, ...] = ()
    answers: list[dict[str, Any]] = []
    buckets: dict[str, dict[str, Any]] = {}
    default: list[dict[str, Any]] = []
    endpoints: dict[str, list[dict[str, Any]]] = {}
    misreported: tuple[str, ...] = ()


class Tables:
    """All tables of a folder.

    Args:
        folder: where they are.

    Raises:
        ConfigError: one of them is wrong; says the file, the key's path and what was expected.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables = {file.stem: _read(file) for file in sorted(folder.glob("*.toml"))}
        self._entries = {name: self._answers_of(name, table) for name, table in self._tables.items()}
        self._limits_of: dict[str, str] = {}
        self._answers_by: dict[str, str] = {name: name for name in self._tables}
        for name, table in self._tables.items():
            for key in ("same_limits", "same_answers"):
                for number, other in enumerate(getattr(table, key)):
                    if other in self._answers_by and not (key == "same_answers" and self._answers_nothing(other)):
                        had = self.file(self._answers_by[other]).name
                        raise ConfigError(f"{self.file(name)}: {key}[{number}]: {other} has {had} already")
                    self._answers_by[other] = name
                    if key == "same_limits":
                        self._limits_of[other] = name
        self._made: dict[str, Answers] = {}

    @property
    def names(self) -> list[str]:
        """The ids of the exchanges that have a table of their own."""
        return list(self._tables)

    @property
    def limited(self) -> list[str]:
        """The ids of those whose table holds limits."""
        return [name for name, table in self._tables.items() if table.buckets]

    @property
    def sharing(self) -> dict[str, str]:
        """The ids that share the limits of another exchange, each with that exchange's id."""
        return dict(self._limits_of)

    @property
    def apart(self) -> dict[tuple[str, str], str]:
        """The reason why two exchanges share nothing although their hosts or domain are the same, by their ids."""
        return {(name, other): why for name, table in self._tables.items() for other, why in table.apart.items()}

    def file(self, name: str) -> Path:
        """Where an exchange's table is, or would be."""
        return self._folder / f"{name}.toml"

    def limits_of(self, exchange: str) -> str:
        """The id of the exchange whose limits this one shares: its own id, unless a table says otherwise."""
        return self._limits_of.get(exchange, exchange)

    def of(self, exchange: str) -> Table | None:
        """The table with an exchange's limits; None where there is none."""
        return self._tables.get(self.limits_of(exchange))

    def entries(self, name: str) -> list[Answer]:
        """What the answers of an exchange mean, as its own table has it."""
        return self._entries[name]

    def answers(self, exchange: str) -> Answers:
        """What the answers of an exchange mean, by its ccxt id."""
        if (made := self._made.get(exchange)) is None:
            made = self._made[exchange] = self._make_answers(exchange)
        return made

    def _make_answers(self, exchange: str) -> Answers:
        name = self._answers_by.get(exchange)
        if name is not None:
            table = self._tables[name]
            alone = table.refusal_pauses == "endpoint"
            return Answers(self._entries[name], table.pause_headers, endpoint_alone=alone, counts=table.counts)
        headers = {name: header for table in self._tables.values() for name, header in table.pause_headers.items()}
        entries = (entry for each in self._entries.values() for entry in each if _is_shared(entry))
        return Answers([*entries, *IN_WORDS], {**OTHER_PAUSE_HEADERS, **headers})

    def _answers_nothing(self, name: str) -> bool:
        """Whether a table says nothing of answers, and no other table has said what they mean."""
        table = self._tables.get(name)
        return (
            table is not None
            and self._answers_by[name] == name
            and not (table.answers or table.pause_headers or table.counts)
        )

    def _answers_of(self, name: str, table: Table) -> list[Answer]:
        for header in table.pause_headers:
            if header != header.lower():
                raise ConfigError(f"{self.file(name)}: pause_headers.{header}: expected lower case")
        entries: list[Answer] = []
        for number, raw in enumerate(table.answers):
            where = f"{self.file(name)}: answers[{number}]"
            entries.append(convert(where, raw, Answer))
            if wrong := entries[-1].wrong:
                raise ConfigError(f"{where}.{wrong}")
        return entries


def _is_shared(entry: Answer) -> bool:
    """Whether it may be meant by an exchange without a table, too."""
    return entry.status is None and (entry.means in SHARED or not entry.equals)


@functools.cache
def shipped() -> Tables:
    """The project's own tables, read once a process."""
    return Tables(LIMITS)


def _read(file: Path) -> Table:
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    table = convert(f"{file}: ", raw, Table, {".pause_headers": PauseHeader})
    if table.exchange != file.stem:
        raise ConfigError(f"{file}: exchange: expected {file.stem!r}, the file's name")
    if bool(table.buckets) != bool(table.default):
        raise ConfigError(f"{file}: {'default' if table.buckets else 'buckets'}: expected, as the other is there")
    if table.endpoints and not table.buckets:
        raise ConfigError(f"{file}: buckets: expected, as there are endpoints")
    return table


S = TypeVar("S", bound=Struct)


def convert(where: str, raw: Any, kind: type[S], parts: Mapping[str, type[Struct]] | None = None) -> S:
    """Makes a Struct of what TOML says.

    Args:
        where: the file and the path of what is made, for the error.
        raw: what TOML says.
        kind: the Struct.
        parts: the Structs within it, by the path at which they begin.

    Raises:
        ConfigError: it is no such Struct; says where, why, and which keys there are.
    """
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError as error:
        what, _, inner = str(error).partition(" - at `$")
        inner = inner.rstrip("`")
        path = (f"{where}{inner.lstrip('.')}" if where.endswith(": ") else f"{where}{inner}").removesuffix(": ")
        part = next((part for begin, part in (parts or {}).items() if inner.startswith(begin)), kind)
        if "unknown field" in what:
            what += f"; expected one of {', '.join(field.encode_name for field in msgspec.structs.fields(part))}"
        elif "enum value" in what:
            what += f"; expected one of {', '.join(_values(get_type_hints(part)[inner.rpartition('.')[2]]))}"
        raise ConfigError(f"{path}: {what}") from error


def _values(hint: Any) -> list[str]:
    """The texts that a field takes: of a ``Literal``, perhaps with None beside it."""
    return [hint] if isinstance(hint, str) else [value for part in get_args(hint) for value in _values(part)]
