"""Writes the client's methods and the types of their answers: ``python -m tests.support.client_code``.

A program that uses the client has no ccxt. So what ccxt says of its reads is written down once, in `schemas/client/`:
the arguments of `schemas.methods` in ccxt's order, with their types and defaults, and the fields of the answers. A test
compares.
"""

import importlib
import inspect
import re
import subprocess
import sys
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from schemas.methods import PRIVATE_READS, PUBLIC_READS

CLIENT: Final = Path(__file__).resolve().parents[2] / "schemas" / "client"
# What ccxt does not annotate, or only as a table or list of anything.
RETURNS: Final = {
    "fetch_balance": "dict[str, Any]",
    "fetch_free_balance": "dict[str, float]",
    "fetch_index_ohlcv": "list[OHLCV]",
    "fetch_long_short_ratio": "LongShortRatio",
    "fetch_mark_ohlcv": "list[OHLCV]",
    "fetch_ohlcv": "list[OHLCV]",
    "fetch_open_interest_history": "list[OpenInterest]",
    "fetch_order_status": "str",
    "fetch_position_adl_rank": "ADL",
    "fetch_premium_index_ohlcv": "list[OHLCV]",
    "fetch_time": "int",
    "fetch_total_balance": "dict[str, float]",
    "fetch_used_balance": "dict[str, float]",
    "load_markets": "dict[str, MarketInterface]",
}
_NUMBERS: Final = {int, float, str, Decimal, types.NoneType}
_WRITTEN: Final = '"""{about} Written by `tests/support/client_code.py`."""\n\n'

_ccxt: Final[Any] = importlib.import_module("ccxt.async_support")
_facts: Final[Any] = importlib.import_module("ccxt.base.types")


def signature(method: str) -> tuple[inspect.Signature, str]:
    """A read's arguments, without `self`, and the type of its answer, as ccxt's base class or most exchanges say."""
    classes = [getattr(_ccxt, exchange) for exchange in _ccxt.exchanges]
    own: list[Callable[..., Any]] = [found for kind in classes if (found := kind.__dict__.get(method))]
    base = getattr(_ccxt.Exchange, method, None) or own[0]
    told = Counter(spelled(inspect.signature(each).return_annotation) for each in own)
    del told["Any"]
    answer = RETURNS.get(method) or next((name for name, _ in told.most_common(1)), "dict[str, Any]")
    taken = [each for each in inspect.signature(base).parameters.values() if each.name != "self"]
    return inspect.Signature(taken), answer


def spelled(kind: Any) -> str:
    """An annotation of ccxt's as it stands in the client's modules."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is inspect.Parameter.empty or kind is Any:
        return "Any"
    if origin in (typing.Union, types.UnionType):
        if set(inside) >= {float, types.NoneType} and set(inside) <= _NUMBERS:
            return "float | None"  # ccxt's Num: a text or a Decimal only where it is set up for that
        return " | ".join(dict.fromkeys(map(spelled, inside)))
    if origin in (list, dict):
        if kind == list[dict[str, Any]]:
            return "list[dict[str, Any]]"
        # A list of markets or fees may hold None in ccxt's types, never in its answers.
        names = [spelled(each).removesuffix(" | None") for each in inside]
        return f"{origin.__name__}[{', '.join(names)}]"
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, inside))}]"
    if origin is typing.NotRequired:
        return f"NotRequired[{spelled(inside[0])}]"
    if kind is dict:
        return "dict[str, Any]"
    if kind is list:
        return "list[Any]"
    if isinstance(kind, str):
        return kind
    return "None" if kind is types.NoneType else str(kind.__name__)


def _names(text: str) -> set[str]:
    return {name for name in re.findall(r"\w+", text) if typing.is_typeddict(getattr(_facts, name, None))}


def answer_types() -> dict[str, dict[str, str]]:
    """Every table that the reads answer with, after those inside of it: field names and their types, by its name."""
    found: dict[str, dict[str, str]] = {}

    def add(name: str) -> None:
        if name in found:
            return
        fields = {field: spelled(kind) for field, kind in inspect.get_annotations(getattr(_facts, name)).items()}
        fields = {field: kind for field, kind in fields.items() if not kind.startswith("list[Prediction")}
        for inner in sorted(set[str]().union(*map(_names, fields.values()))):
            add(inner)
        found[name] = fields

    for name in sorted(set[str]().union(*(_names(signature(method)[1]) for method in PUBLIC_READS | PRIVATE_READS))):
        add(name)
    return found


def types_module() -> str:
    """`schemas/client/types.py`."""
    lines = [_WRITTEN.format(about="What the reads answer, by the names of ccxt's types and fields.")]
    lines += ["from typing import Any, Literal, NotRequired, TypeAlias, TypedDict\n\n"]
    lines += ["# Unix milliseconds, open, high, low, close, volume.\nOHLCV: TypeAlias = list[float]\n"]
    for name, fields in answer_types().items():
        lines += [f'\n\nclass {name}(TypedDict):\n    """ccxt\'s {name}."""\n\n']
        lines += [f"    {field}: {kind}\n".replace("'", '"') for field, kind in fields.items()]
    return formatted("".join(lines))


def _arguments(taken: inspect.Signature) -> Iterator[str]:
    for name, each in taken.parameters.items():
        kind = "bool" if name == "reload" else spelled(each.annotation)
        if name == "params":
            yield "params: Mapping[str, Any] = EMPTY"
        elif name in ("since", "limit"):
            yield f"{name}: int | None = None"
        elif kind.startswith("list[str]"):
            yield f"{name}: Sequence[str] | None = None"
        else:
            yield f"{name}: {kind}" + ("" if each.default is each.empty else f" = {each.default!r}")


def _method(method: str, *, blocking: bool) -> str:
    taken, answer = signature(method)
    how = "PublicHow" if method in PUBLIC_READS else "AccountHow"
    define = "def" if blocking else "async def"
    arguments = ", ".join(_arguments(taken))
    args = ", ".join(f'"{name}": {name}' for name in taken.parameters)
    head = f"    {define} {method}(self, {arguments}, *, mode:"
    call = f'self.read("{method}", {{{args}}}, mode, how)'
    about = f"ccxt's `{method}`{'' if how == 'PublicHow' else ', of an account'}."
    return (
        f'    @overload\n{head} Literal["any"] = "any", **how: Unpack[{how}]) -> {answer}: ...\n\n'
        f'    @overload\n{head} Literal["all"], **how: Unpack[{how}]) -> All[{answer}]: ...\n\n'
        f'{head} Mode = "any", **how: Unpack[{how}]) -> Any:\n'
        f'        """{about}"""\n        return {"" if blocking else "await "}{call}\n\n'
    )


def methods_module(*, blocking: bool) -> str:
    """`schemas/client/reads.py`, or where `blocking` its twin for programs without an event loop."""
    reads = sorted(PUBLIC_READS | PRIVATE_READS)
    used = set[str]().union(*(_names(signature(method)[1]) for method in reads)) | {"OHLCV"}
    name = "BlockingReads" if blocking else "Reads"
    define = "def" if blocking else "async def"
    head = _WRITTEN.format(about="Every read that the fleet runs, with ccxt's arguments in ccxt's order.")
    head += "from collections.abc import Mapping, Sequence\nfrom typing import Any, Literal, Unpack, overload\n\n"
    head += "from .asking import EMPTY, AccountHow, All, How, Mode, PublicHow\n"
    head += f"from .types import {', '.join(sorted(used, key=lambda name: (not name.isupper(), name)))}\n\n\n"
    head += f'class {name}:\n    """The reads; a subclass says how one is asked."""\n\n'
    head += f"    {define} read(self, method: str, args: Mapping[str, Any], mode: Mode, how: How) -> Any:\n"
    head += '        """Asks for a read by the names of it and its arguments; what the methods below return."""\n'
    head += "        raise NotImplementedError\n\n"
    return formatted(head + "".join(_method(method, blocking=blocking) for method in reads))


def formatted(text: str) -> str:
    """A module's text as ruff formats it."""
    argv = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "written.py", "-"]
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True, cwd=CLIENT.parents[1]).stdout


def modules() -> dict[Path, str]:
    """Each module and its text."""
    return {
        CLIENT / "types.py": types_module(),
        CLIENT / "reads.py": methods_module(blocking=False),
        CLIENT / "blocking_reads.py": methods_module(blocking=True),
    }


if __name__ == "__main__":
    for path, text in modules().items():
        path.write_text(text, encoding="utf-8")
