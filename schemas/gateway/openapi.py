"""What the gateway says of its own API: OpenAPI of all reads, made of the client's methods, and a page for people."""

import html
import inspect
from functools import lru_cache
from typing import Any, Final, get_overloads, get_type_hints

import msgspec
from msgspec import json

from .. import jsonschema
from ..client.reads import Reads
from ..messages import Result
from ..methods import PUBLIC_READS
from ..version import VERSION
from . import answers, reads

SCHEMA_PATH: Final = "/v1/openapi.json"
PAGE_PATHS: Final = ("/", "/v1", "/v1/")
_REF: Final = "#/components/schemas/{name}"
_HOW: Final = {
    "exchanges": "which may answer, with commas between: ccxt ids, lanes or groups; without it any",
    "exchanges_mode": "`any` for one answer, `all` for a list with one from each exchange",
    "strategy": "how one of them is chosen",
    "priority": "`live`, or `bulk` for what has time",
    "max_age_ms": "the answer to an equal request will do that is no older; `bar` for candles",
    "hedge_ms": "without an answer after so many milliseconds a second exchange is asked too",
}
_WAIT: Final = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=5`: how many seconds the caller waits",
    "schema": {"type": "string"},
}
_STATUSES: Final = sorted({*answers.STATUSES.values(), *answers.OWN.values()})


def page(path: str) -> tuple[str, str] | None:
    """A page of the gateway's own: its type, and its text; None where there is none."""
    if path == SCHEMA_PATH:
        return answers.JSON_TYPE, _document()
    return ("text/html; charset=utf-8", _for_people()) if path in PAGE_PATHS else None


@lru_cache(1)
def _document() -> str:
    return json.format(json.encode(document()), indent=1).decode()


def document() -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    methods = sorted(PUBLIC_READS)
    returned = {method: _returned(method) for method in methods}
    given = {method: reads.arguments(method) for method in methods}
    kinds = [*returned.values(), *(kind for each in given.values() for kind in each.values()), *reads.HOW.values()]
    found, components = msgspec.json.schema_components([*kinds, Result], ref_template=_REF)
    schemas = dict(zip(map(repr, kinds), found, strict=False))
    result = components["Result"]
    jsonschema.describe(result)
    components["Refusal"] = {
        "type": "object",
        "description": "Why the fleet was not asked.",
        "required": ["id", "ok", "error"],
        "properties": {
            "id": {"type": "string"},
            "ok": {"const": False},
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ccxt-fleet gateway",
            "version": VERSION,
            "description": "Reads of exchanges by ccxt's names, within every exchange's limits.",
        },
        "components": {
            "schemas": components,
            "parameters": {
                **{name: _parameter(name, schemas[repr(kind)], False, _HOW[name]) for name, kind in reads.HOW.items()},
                "wait": _WAIT,
            },
            "responses": {str(status): _content(_WHY[status], _ERROR) for status in _STATUSES},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
        "paths": {f"/v1/{method}": _path(method, given[method], returned[method], schemas) for method in methods},
    }


def _path(method: str, given: dict[str, Any], returned: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    required = {
        name
        for name, each in inspect.signature(getattr(Reads, method)).parameters.items()
        if name in given and each.default is each.empty
    }
    result = {
        "allOf": [{"$ref": _REF.format(name="Result")}],
        "properties": {"data": {"anyOf": [schemas[repr(returned)], {"type": "null"}]}},
    }
    return {
        "get": {
            "operationId": method,
            "summary": f"ccxt's `{method}`",
            "parameters": [
                *(_parameter(name, schemas[repr(kind)], name in required, "") for name, kind in given.items()),
                *({"$ref": f"#/components/parameters/{name}"} for name in (*reads.HOW, "wait")),
            ],
            "responses": {
                "200": _content("the result", {"anyOf": [result, {"type": "array", "items": result}]}),
                **{str(status): {"$ref": f"#/components/responses/{status}"} for status in _STATUSES},
            },
        }
    }


_ERROR: Final = {"anyOf": [{"$ref": _REF.format(name="Result")}, {"$ref": _REF.format(name="Refusal")}]}
_WHY: Final = {
    status: ", ".join(
        sorted(str(code) for code, each in (*answers.STATUSES.items(), *answers.OWN.items()) if each == status)
    )
    for status in _STATUSES
}


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {answers.JSON_TYPE: {"schema": schema}}}


def _parameter(name: str, schema: dict[str, Any], required: bool, about: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "in": "query", "required": required, "schema": schema}
    if schema.get("type") == "object":  # in JSON, as one text
        made |= {"content": {answers.JSON_TYPE: {"schema": made.pop("schema")}}}
    elif "array" in str(schema):
        made |= {"style": "form", "explode": False}
    return made | ({"description": about} if about else {})


def _returned(method: str) -> Any:
    """What a read answers, by the first of its overloads: that for one exchange."""
    (one, *_) = get_overloads(getattr(Reads, method))
    return get_type_hints(one)["return"]


@lru_cache(1)
def _for_people() -> str:
    rows = "".join(
        f"<li><code>/v1/{method}</code> {html.escape(', '.join(reads.arguments(method)))}</li>\n"
        for method in sorted(PUBLIC_READS)
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>ccxt-fleet gateway</title>\n'
        f"<h1>ccxt-fleet {html.escape(VERSION)}: gateway</h1>\n"
        "<p><code>/&lt;exchange&gt;/&lt;host&gt;/&lt;path&gt;</code> answers as the exchange itself would, as in "
        "<code>/binance/api.binance.com/api/v3/time</code>.</p>\n"
        "<p>Reads by ccxt's names, as in <code>/v1/fetch_ticker?symbol=BTC/USDT&amp;exchanges=okx</code>; "
        '<a href="/v1/openapi.json">OpenAPI</a>:</p>\n'
        f"<ul>\n{rows}</ul>\n"
    )
