"""What source code declares: functions, and types that can be looked up while the types of parameters are read.

Knows no language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .schemas import UnreadableCodeError
from .tokens import Span

MOST_TYPES = 1_000  # that are read for one function, parts of types and repeated look-ups counted
MOST_TOKENS = 300_000  # of them all together
DEEPEST_TYPE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function in the code. "" is the name of one without."""

    name: str
    parameters: Span | None  # what is between the parentheses; None where they can't be made out
    top_level: bool  # not inside a class


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What the code declares: functions in their order, types by name, each from its keyword or first word on."""

    functions: tuple[Function, ...]
    types: Mapping[str, Span]


@dataclass(slots=True)
class Effort:
    """How much has been read for one function."""

    types: int = 0
    tokens: int = 0

    def spend(self, tokens: int) -> None:
        """Counts a type of so many tokens. Raises UnreadableCodeError when it was too much in all."""
        self.types += 1
        self.tokens += tokens
        if self.types > MOST_TYPES or self.tokens > MOST_TOKENS:
            raise UnreadableCodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a type stands: the types that can be named there, those being read already, how deep inside others."""

    types: Mapping[str, Span]
    being_read: frozenset[str] = frozenset()
    depth: int = 0
    effort: Effort = field(default_factory=Effort)  # the same one in all scopes of a function

    def inside(self, span: Span) -> Scope | None:
        """The scope of the parts of this type; None where it is too deep inside others to be read."""
        self.effort.spend(len(span))
        return None if self.depth >= DEEPEST_TYPE else replace(self, depth=self.depth + 1)

    def declaration(self, name: str) -> tuple[Span, Scope] | None:
        """The declaration of a type and its own scope. None if there is none, and inside the type itself."""
        span = self.types.get(name)
        if span is None or name in self.being_read:
            return None
        self.effort.spend(len(span))
        return span, replace(self, being_read=self.being_read | {name})
