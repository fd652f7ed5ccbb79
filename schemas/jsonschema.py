"""The messages as JSON Schema files, for programs in any language: ``python -m schemas.jsonschema`` writes them.

They are in ``json/`` beside this file, in the checkout and in the wheel. A test fails when one is out of date.
"""

import inspect
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, json

from .messages import Attempt, DeadLetter, Request, Result
from .reports import Report
from .status import DispatcherStatus, GatewayStatus, WorkersStatus, WorkerStatus

FOLDER: Final = Path(__file__).with_name("json")
MESSAGES: Final[tuple[type[Struct], ...]] = (
    Request,
    Attempt,
    Result,
    Report,
    DeadLetter,
    DispatcherStatus,
    WorkerStatus,
    WorkersStatus,
    GatewayStatus,
)
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_NONE: Final[dict[str, Any]] = {"type": "null"}
# A request is for a ccxt method or for an HTTP call, not for both.
_OF_A_METHOD: Final[dict[str, Any]] = {
    "required": ["method"],
    "properties": {"method": {"type": "string"}, "http": _NONE},
}
_OF_A_CALL: Final[dict[str, Any]] = {
    "required": ["http", "exchanges"],
    "properties": {
        "http": {"type": "object"},
        "exchanges": {"type": "array", "minItems": 1},
        "method": _NONE,
        "args": {"enum": [None, {}, []]},
        "account": _NONE,
    },
}
# An empty list stands for an empty table, and the other way round.
_OTHER_EMPTY: Final[dict[str, list[dict[str, Any]]]] = {
    "object": [{"type": "array", "maxItems": 0}],
    "array": [{"type": "object", "additionalProperties": False}],
}


def schema(message: type[Struct]) -> dict[str, Any]:
    """A message's schema, with descriptions from the docstrings."""
    definitions: dict[str, dict[str, Any]] = json.schema(message)["$defs"]
    for definition in definitions.values():
        describe(definition)
    whole: dict[str, Any] = {"$schema": DIALECT, **definitions.pop(message.__name__)}
    if message is Request:
        _take_null(whole["properties"])
        _take_null(definitions["Http"]["properties"])
        whole["anyOf"] = [_OF_A_METHOD, _OF_A_CALL]
    return {**whole, "$defs": definitions} if definitions else whole


def path(message: type[Struct]) -> Path:
    """The file of a message's schema."""
    return FOLDER / f"{message.__name__.lower()}.json"


def render(message: type[Struct]) -> bytes:
    """The content of the file of a message's schema."""
    return json.format(json.encode(schema(message)), indent=2) + b"\n"


def _take_null(fields: dict[str, Any]) -> None:
    """Has null, and what is empty, stand for the default of each field that has one, as `encodings` reads it."""
    for name, field in fields.items():
        kinds: list[Any] = field.get("anyOf", [])
        if "default" in field and {"type": "null"} not in kinds:
            beside = {key: field.pop(key) for key in ("default", "description") if key in field}
            fields[name] = {"anyOf": [field, {"type": "null"}, *_OTHER_EMPTY.get(field.get("type"), ())], **beside}


def describe(definition: dict[str, Any]) -> None:
    """Divides a docstring among a message and its fields: msgspec puts all of it into the message's description."""
    head, _, arguments = inspect.cleandoc(definition.get("description", "")).partition("\n\nArgs:\n")
    definition["description"] = " ".join(head.split())
    name = ""
    for line in arguments.partition("\n\n")[0].splitlines():
        if line.startswith("     "):  # the argument's second line
            definition["properties"][name]["description"] += f" {line.strip()}"
        else:
            name, _, text = line.strip().partition(": ")
            definition["properties"][name]["description"] = text


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for kind in MESSAGES:
        path(kind).write_bytes(render(kind))
