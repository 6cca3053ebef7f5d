"""Reading the code of a function in tests, and short names for the schemas that come out."""

from __future__ import annotations

import json
from typing import Any

from server.chat.function_code import parameters_of

ANY_OBJECT = {"type": "object"}
STRING = {"type": "string"}
NUMBER = {"type": "number"}
INTEGER = {"type": "integer"}
BOOLEAN = {"type": "boolean"}
NULL = {"type": "null"}
ARRAY = {"type": "array"}


def takes(required: dict[str, Any], optional: dict[str, Any] | None = None, *, more: bool = False) -> dict[str, Any]:
    """The schema of an object with these properties, the required ones first."""
    schema: dict[str, Any] = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        schema["required"] = list(required)
    return {**schema, "additionalProperties": more}


def read(code: str, name: str = "f") -> Any:
    return json.loads(parameters_of(name, code))


def nullable(schema: Any) -> Any:
    return {"anyOf": [schema, NULL]}
