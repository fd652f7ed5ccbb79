"""The JSON Schema files are what the Structs say, with every field described."""

import inspect
from typing import Any

import msgspec
import pytest

from schemas import jsonschema

MESSAGES = pytest.mark.parametrize("message", jsonschema.MESSAGES, ids=lambda message: message.__name__)


@MESSAGES
def test_file_is_what_the_struct_says(message: type[msgspec.Struct]) -> None:
    assert jsonschema.path(message).read_bytes() == jsonschema.render(message), "run: python -m schemas.jsonschema"


def test_no_file_is_left_over() -> None:
    assert set(jsonschema.FOLDER.iterdir()) == {jsonschema.path(message) for message in jsonschema.MESSAGES}


@MESSAGES
def test_fields_are_described_all_or_none(message: type[msgspec.Struct]) -> None:
    schema = jsonschema.schema(message)
    for definition in (schema, *schema.get("$defs", {}).values()):
        assert definition["description"]
        described = ["description" in field for field in definition.get("properties", {}).values()]
        assert all(described) or not any(described), definition["title"]


@MESSAGES
def test_fields_and_what_must_be_there_are_the_structs(message: type[msgspec.Struct]) -> None:
    schema = jsonschema.schema(message)
    fields = msgspec.structs.fields(message)
    assert list(schema["properties"]) == [field.encode_name for field in fields]
    assert schema["required"] == [field.encode_name for field in fields if field.required]


def test_descriptions_are_single_lines_of_the_docstring() -> None:
    described: dict[str, Any] = jsonschema.schema(jsonschema.MESSAGES[0])
    docstring = " ".join(inspect.cleandoc(jsonschema.MESSAGES[0].__doc__ or "").split())
    assert described["description"] in docstring
    for name, field in described["properties"].items():
        assert f"{name}: {field['description']}" in docstring
