"""Functions given as source code: what they are called with, as a JSON Schema. The code is read, never run.

Python, JavaScript and TypeScript are read. Names of parameters and, where written, types are taken over; what is not
understood is left open. Knows no requests, no models and no grammars.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from . import python, typescript, typescript_outline
from .outline import Function, Outline, Scope
from .schemas import ANY_OBJECT, Schema, UnreadableCodeError
from .tokens import Span

LONGEST_CODE = 131_072  # characters
LONGEST_SCHEMA = 32_768  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """How code of one language is read."""

    outline: Callable[[str], Outline]
    arguments: Callable[[Span, Scope], Schema]


_READERS = (
    _Reader(outline=python.outline, arguments=python.arguments),
    _Reader(outline=typescript_outline.outline, arguments=typescript.arguments),  # JavaScript too
)


@lru_cache(maxsize=256)  # a request's functions are asked for when it is checked and when it is rendered
def parameters_of(name: str, code: str) -> str:
    """The JSON Schema of the arguments that function `name` takes, from its code. Never raises.

    The function is the last one of that name, rather one outside classes than a method; if none has the name, the
    only one outside classes. `{"type": "object"}`, any object, where the code can't be understood.
    """
    try:
        schema = _schema(name, code)
    except (UnreadableCodeError, UnicodeEncodeError):  # the latter for lone surrogates
        schema = ANY_OBJECT
    text = json.dumps(schema, ensure_ascii=False)
    return text if len(text) <= LONGEST_SCHEMA else json.dumps(ANY_OBJECT)


def _schema(name: str, code: str) -> Schema:
    code.encode()
    if len(code) > LONGEST_CODE:
        raise UnreadableCodeError
    outlines = []
    for reader in _READERS:
        outline = reader.outline(code)
        function = _named(name, outline)
        if function is not None:
            return _arguments(reader, outline, function)
        outlines.append((reader, outline))
    # Python's functions can look like methods of JavaScript, not the other way round: the first language counts.
    for reader, outline in outlines:
        if outline.functions:
            return _arguments(reader, outline, _only(outline))
    raise UnreadableCodeError


def _arguments(reader: _Reader, outline: Outline, function: Function | None) -> Schema:
    if function is None or function.parameters is None:
        raise UnreadableCodeError
    return reader.arguments(function.parameters, Scope(types=outline.types))


def _named(name: str, outline: Outline) -> Function | None:
    named = [each for each in outline.functions if each.name == name]
    preferred = [each for each in named if each.top_level] or named
    return preferred[-1] if preferred else None  # as a later definition replaces an earlier one


def _only(outline: Outline) -> Function | None:
    functions = [each for each in outline.functions if each.top_level]
    return functions[-1] if len({each.name for each in functions}) == 1 else None
