"""Where functions and types are declared in TypeScript and JavaScript code. Knows nothing about what they are.

It looks for heads only: `function f(`, `f = (...) =>`, `f(...) {`, `class`, `interface`, `type` and `enum`.
"""

from __future__ import annotations

from .outline import Function, Outline
from .tokens import Span, typescript_tokens
from .typescript_types import end_of_type, property_name

_NEAR = 64  # tokens that a head may have, apart from parameters
_NO_METHODS = frozenset(("if", "for", "while", "switch", "catch", "with", "function", "return", "await", "super"))
_ENDS = frozenset((",", ";", ")", "}", "]"))


def outline(code: str) -> Outline:
    """The functions and types that the code declares, also in classes and objects, but not within functions."""
    return _Outliner(typescript_tokens(code)).outline()


class _Outliner:
    """Walks once over the code. Each `_read_...` gives the position to go on at, None if it finds nothing."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._functions: list[Function] = []
        self._types: dict[str, Span] = {}
        self._class_ends: list[int] = []  # of the classes around

    def outline(self) -> Outline:
        position = 0
        while position < len(self._span):
            while self._class_ends and position >= self._class_ends[-1]:
                self._class_ends.pop()
            position = self._next(position)
        return Outline(functions=tuple(self._functions), types=self._types)

    def _next(self, position: int) -> int:
        text = self._span.text(position)
        found: int | None = None
        if text in ("interface", "enum", "type"):
            found = self._read_type(position)
        elif text == "class":
            found = self._read_class(position)
        elif text == "function":
            found = self._read_function(position)
        elif text == "(":
            found = self._read_parenthesis(position)
        elif self._span.token(position).kind in ("name", "string"):
            found = self._read_name(position)
        return position + 1 if found is None else found

    def _read_type(self, position: int) -> int | None:
        span, name = self._span, self._span.token(position + 1)
        if name.kind != "name":
            return None
        if span.text(position) == "type":
            end: int | None = end_of_type(span, position) if span.text(position + 2) in ("=", "<") else None
        else:
            end = span.closer(self._near(position, "{"))
            end = None if end is None else end + 1
        if end is not None:
            self._types[name.text] = span.part(position, end)
        return end

    def _read_class(self, position: int) -> int | None:
        opener = self._near(position, "{")
        end = self._span.closer(opener)
        if end is None:
            return None
        self._class_ends.append(end)
        return opener + 1

    def _read_function(self, position: int) -> int | None:
        """`function name<T>(...): type { ... }`, with or without each of `name`, `<T>`, type and body."""
        span = self._span
        start = position + (2 if span.text(position + 1) == "*" else 1)
        own_name = span.text(start) if span.token(start).kind == "name" else ""
        opener = self._near(start, "(")
        if span.closer(opener) is None:
            self._functions.append(self._function(own_name, None))
            return None
        self._functions.append(self._function(self._name_before(position) or own_name, span.inside(opener)))
        end = span.after(opener)
        body = self._after_type(end, "{")
        return end if body is None else span.after(body)

    def _read_parenthesis(self, position: int) -> int | None:
        """`(...): type => ...`. What is in the parentheses of a call doesn't count."""
        span = self._span
        if span.closer(position) is None:
            return None
        arrow = self._after_type(span.after(position), "=>")
        if arrow is not None:
            self._functions.append(self._function(self._name_before(position), span.inside(position)))
            return self._end_of_body(arrow + 1)
        before = span.token(position - 1)
        is_call = before.kind in ("name", "string", "template") or before.text in (")", "]")
        return span.after(position) if is_call else None

    def _read_name(self, position: int) -> int | None:
        """`x => ...`, or a method `name(...): type { ... }`."""
        span = self._span
        if span.text(position + 1) == "=>":
            self._functions.append(self._function(self._name_before(position), span.part(position, position + 1)))
            return self._end_of_body(position + 2)
        is_method = span.text(position) not in _NO_METHODS and span.text(position - 1) not in (".", "new")
        if not is_method or span.closer(position + 1) is None or span.text(position + 1) != "(":
            return None
        body = self._after_type(span.after(position + 1), "{")
        if body is None:
            return None
        name = property_name(span.part(position)) or ""
        self._functions.append(self._function(name, span.inside(position + 1)))
        return span.after(body)

    def _function(self, name: str, parameters: Span | None) -> Function:
        return Function(name=name, parameters=parameters, top_level=not self._class_ends)

    def _near(self, position: int, mark: str) -> int:
        """The first of these not far from a position."""
        return position + self._span.part(position, position + _NEAR).find((mark,), angles=True)

    def _after_type(self, position: int, mark: str) -> int | None:
        """Where the mark is that stands here or after a `: type` that does."""
        span = self._span
        if span.text(position) == ":":
            start = span.after(position + 1) if span.text(position + 1) == "{" else position + 1
            near = span.part(start, start + _NEAR)
            position = start + near.find((mark, "=", ":", *_ENDS), angles=True)
        return position if span.text(position) == mark else None

    def _end_of_body(self, position: int) -> int:
        """Where the body of an arrow function ends: a block, or an expression with no sign of where it ends."""
        span = self._span
        if span.text(position) == "{":
            return span.after(position)
        first = position
        while position < len(span) and span.text(position) not in _ENDS:
            before, here = span.token(position - 1), span.token(position)
            if position > first and here.column >= 0 and here.kind == "name" and before.kind != "mark":
                break
            if position > first and here.column >= 0 and here.kind == "name" and before.text in _ENDS:
                break
            position = span.after(position)
        return position

    def _name_before(self, position: int) -> str:
        """The name that what stands here is given: `name =`, `name: type =`, `"name":`, `exports["name"] =`."""
        span = self._span
        end = position - (2 if span.text(position - 1) == "async" else 1)
        if span.text(end) == "(":
            end -= 1
        if span.text(end) not in ("=", ":"):
            return ""
        if span.text(end - 1) == "]":
            return property_name(span.part(end - 2)) or ""
        is_typed = span.text(end) == "=" and span.text(end - 2) == ":"
        return property_name(span.part(end - (3 if is_typed else 1))) or ""
