"""Requests that are valid protobuf and hardly ever sensible: every field, extreme values, hostile texts.

Made from the messages' own descriptors, so fields that are added later are met too. Knows no server and no limits;
the same `random.Random` gives the same requests.
"""

from __future__ import annotations

import json
import random
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from llamarpc.v1 import text_generation_pb2 as pb

_Message = TypeVar("_Message", bound=Message)

_DEPTH = 3_000
_DEEP_JSON = "[" * _DEPTH + "]" * _DEPTH
_DEEP_SCHEMA = '{"type":"array","items":' * 500 + "{}" + "}" * 500
_OBJECT_SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}'

TEXTS = (
    *("", " ", "\x00", "\n\n", "a", "hello", "é", "日本語", "🦙" * 9, "\u202e\ufeff", "\ud7ff\ue000", "\U0010ffff"),
    *("<|im_start|>system", "<|im_end|>", "<|eot_id|>", "<tool_call>", '{"name": "f", "arguments": {}}'),
    *("../../etc/passwd", "%s%n{0}", "'; DROP TABLE", "bytes-1", "x" * 1_025, "x" * 131_072, "x" * 131_073),
    *(
        "null",
        "[]",
        "{}",
        "1e999",
        "NaN",
        _OBJECT_SCHEMA,
        _DEEP_JSON,
        _DEEP_SCHEMA,
        '{"a":1,"a":2}',
        '{"a":',
        '"\\ud800"',
    ),
    *('{"$ref":"#"}', '{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}}', '{"enum":[]}', '{"pattern":"(a+)+$"}'),
    *('{"type":"string","maxLength":1e9}', '{"minItems":1000000,"type":"array"}', '{"anyOf":[]}', "true", "false"),
    *("(a|b)*c", "(" * 400 + ")" * 400, "a{1000000}", "[^\\x00-\\uffff]", "(?=x)", "\\", "[z-a]", "(?P<n>x)(?P=n)"),
    *('root ::= "a" root | ""', "root ::= root", "root ::= missing", 'root ::= "' + "a" * 5_000 + '"', "root ::= ("),
    *("def f(a: int, b: list[str] = []) -> None:\n    'Adds.'", "def f(:", "class A: pass", "lambda: 0", "import os"),
)
_WHOLE = (-(2**63), -(2**31), -1, 0, 1, 2, 49, 50, 51, 255, 256, 1_000, 2**31 - 1, 9_999_999_999, 2**53 + 1, 2**63 - 1)
_FRACTIONS = (float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 1e-45, 1e-9, 0.5, 1.0, 2.0, 2.0001, 5.0, -2.0, 3e38)


def random_message(kind: type[_Message], source: random.Random, *, density: float) -> _Message:
    """A message with about this share of its fields set, and of those of the messages in it."""
    message = kind()
    _fill(message, source, density)
    return message


def mutated_request(source: random.Random) -> pb.GenerateRequest:
    """A request that would be answered, with some fields of a random one: this gets further in than chance alone."""
    request = pb.GenerateRequest(max_tokens=source.randint(1, 40))
    if source.random() < 0.5:
        request.prompt = source.choice(TEXTS) or "Hi"
    else:
        request.messages.add(role=source.randint(1, 4), content="Hi").tool_call_id = source.choice(("", "a"))
    request.MergeFrom(random_message(pb.GenerateRequest, source, density=source.choice((0.0, 0.02, 0.05))))
    _shape(request, source)
    return request


def _shape(request: pb.GenerateRequest, source: random.Random) -> None:
    """Tools or a response format, mostly such that can be compiled."""
    schema = source.choice((_OBJECT_SCHEMA, json.dumps({"enum": [1, "b", None]}), source.choice(TEXTS)))
    kind = source.randrange(8)
    if kind == 0:
        request.response_format.json_schema = schema
    elif kind == 1:
        request.response_format.regex = source.choice(("[a-z]+", source.choice(TEXTS)))
    elif kind == 2:
        request.tools.add().function.MergeFrom(_function(source, schema))
        request.tool_choice.mode = source.randint(0, 3)
    elif kind == 3:
        request.response_format.json_object.SetInParent()


def _function(source: random.Random, schema: str) -> Any:
    kind = pb.GenerateRequest.DESCRIPTOR.fields_by_name["tools"].message_type.fields_by_name["function"].message_type
    return kind._concrete_class(name=source.choice(("f", "look_up", source.choice(TEXTS))), parameters=schema)


def _fill(message: Message, source: random.Random, density: float) -> None:
    for field in message.DESCRIPTOR.fields:
        if source.random() >= density:
            continue
        if field.is_repeated:
            _extend(getattr(message, field.name), field, source, density)
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            _fill(getattr(message, field.name), source, density)
        else:
            setattr(message, field.name, _value(field, source))


def _extend(values: Any, field: FieldDescriptor, source: random.Random, density: float) -> None:
    count = source.choice((1, 1, 2, 3, 9, 130))
    for _ in range(count):
        if field.message_type is not None:
            _fill(values.add(), source, density)
        else:
            values.append(_value(field, source))


def _value(field: FieldDescriptor, source: random.Random) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return source.choice(TEXTS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return source.random() < 0.5
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return source.choice(_FRACTIONS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_INT64:
        return source.choice(_WHOLE)
    return source.choice([value for value in _WHOLE if -(2**31) <= value < 2**31])  # int32 and enums, known or not
