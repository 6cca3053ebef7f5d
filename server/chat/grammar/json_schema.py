"""JSON Schema to grammar. Every text of the grammar is JSON that satisfies the schema; all else is refused.

The dialect is that of draft 2020-12, less what a grammar can't keep; a keyword is kept or refused with its place, never
ignored. The grammar may leave out some values that the schema allows: members come in the schema's order, and those
beyond `properties`, be it an empty one, only where additionalProperties asks for them. Knows no keywords, no digits and
no characters.
"""

from __future__ import annotations

from collections import deque

from .exclusion import check_exclusive, written_types
from .expressions import Choice, Expression, Fragment, GuideError, Literal, Reference, Repeat, Sequence, choice
from .json_text import read_json
from .json_values import OBJECT, VALUE, with_used_rules
from .limits import MAX_RULE_SYMBOLS, Budget, expanded_size
from .references import Case, Document, Node
from .rule_checks import check_rules
from .shape_grammar import NoValue, shape_expression
from .shapes import Group

MAX_SYMBOLS = 75_000  # of one schema's rules together, which take a quarter of a second

_MAX_INLINE_DEPTH = 12
_MAX_INLINE_SYMBOLS = 16


def schema_fragment(
    schema: str, *, prefix: str = "", object_only: bool = False, budget: Budget | None = None
) -> Fragment:
    """The grammar of a schema given as JSON text.

    `prefix` begins the names of the schema's own rules, so that several can share a grammar; those of JSON itself are
    the same everywhere. `object_only`: the schema must allow nothing but objects. `budget`: what several schemas share
    as their limit; None is one of its own. Raises GuideError, whose place is a JSON Pointer into the schema.
    """
    budget = Budget() if budget is None else budget
    budget.spend(1 + schema.count(","), "")  # about as many as there are values, known before they are read
    document = Document(read_json(schema), budget)
    if object_only:
        _check_object_only(document)
    return _Compiler(document, prefix, budget).fragment()


def any_object() -> Fragment:
    """The grammar of all JSON objects."""
    return with_used_rules(OBJECT, {})


def _check_object_only(document: Document) -> None:
    for case in document.cases(document.node(("",))):
        shape = document.shape(case.owns)
        if not shape.impossible and written_types(shape) != {"object"}:
            raise GuideError("", 'must allow nothing but objects; add "type": "object"')


class _Compiler:
    """One schema on its way to a grammar.

    Schemas that are reached through references become rules that wait in a queue, so neither recursion of schemas nor
    long chains of them are recursion here.
    """

    def __init__(self, document: Document, prefix: str, budget: Budget) -> None:
        self._document = document
        self._budget = budget
        self._prefix = prefix
        self._rules: dict[str, Expression] = {}
        self._places: dict[str, str] = {}  # by rule, for complaints
        self._shared: dict[Expression, str] = {}
        self._known: dict[Node, Expression] = {}
        self._open: set[Node] = set()
        self._queue: deque[tuple[str, Node]] = deque()
        self._symbols = 0

    def fragment(self) -> Fragment:
        """The schema's grammar. Raises GuideError."""
        start = self._node(self._document.node(("",)))
        self._checked_size(start, "")
        while self._queue:
            name, node = self._queue.popleft()
            self._rules[name] = self._node(node)
            self._checked_size(self._rules[name], self._places[name])
        check_rules(self._rules, self._places)
        return with_used_rules(start, self._rules)

    def is_false(self, group: Group) -> bool:
        """See `shape_grammar.Parts`, as of the next three."""
        return self._document.is_false(group)

    def value(self, group: Group, place: str) -> Expression:
        node = self._document.node(group)
        if node == Node():
            return VALUE
        if node not in self._known:
            # An open node can come up again without $ref: in a case of an anyOf that leads back.
            waits = node in self._open or len(self._open) >= _MAX_INLINE_DEPTH or self._document.is_reference(group)
            expression = self._queued(node, place) if waits else self.share(self._node(node), place)
            self._known.setdefault(node, expression)
        return self._known[node]

    def share(self, expression: Expression, place: str) -> Expression:
        if self._checked_size(expression, place) <= _MAX_INLINE_SYMBOLS:
            return expression
        name = self._shared.setdefault(expression, self._next_name())
        if name not in self._rules:
            self._places[name] = place
            self._rules[name] = expression
        return Reference(name)

    def spend(self, symbols: int, place: str) -> None:
        self._symbols += symbols
        if self._symbols > MAX_SYMBOLS:
            raise GuideError("", f"makes a grammar of more than {MAX_SYMBOLS:,} symbols; leave parts of it out")
        self._budget.spend(symbols, place)

    def _queued(self, node: Node, place: str) -> Expression:
        name = self._next_name()
        self._places[name] = node.owns[0] if node.owns else place
        self._queue.append((name, node))
        return Reference(name)

    def _next_name(self) -> str:
        return f"{self._prefix}part-{len(self._places) + 1}"

    def _node(self, node: Node) -> Expression:
        self._open.add(node)
        try:
            return self._choices(node) if node.choices else self._shape(node.owns)
        finally:
            self._open.discard(node)

    def _checked_size(self, expression: Expression, place: str) -> int:
        """What the expression takes with its repeats written out."""
        size = expanded_size(expression)
        if size > MAX_RULE_SYMBOLS:
            raise GuideError(place, f"makes a grammar of more than {MAX_RULE_SYMBOLS:,} symbols; allow less")
        self.spend(size if size <= _MAX_INLINE_SYMBOLS else _written_size(expression), place)
        return size

    def _shape(self, owns: Group) -> Expression:
        return shape_expression(self._document.shape(owns), self)

    def _choices(self, node: Node) -> Expression:
        is_alone = not node.owns and len(node.choices) == 1
        if is_alone and node.choices[0].endswith("/anyOf"):
            return self._options(node.choices[0])
        cases = self._document.cases(node)
        check_exclusive(cases, self._document)
        return self._options(node.choices[0]) if is_alone else self._cases(cases, node.choices[0])

    def _options(self, place: str) -> Expression:
        """One of the options of a list that stands alone."""
        options = [each for each in self._document.options(place) if not self.is_false((each,))]
        if not options:
            raise NoValue(place, "no value can satisfy this")
        return choice(*(self.value((each,), each) for each in options))

    def _cases(self, cases: tuple[Case, ...], place: str) -> Expression:
        """One of the cases that a value can be; those that contradict themselves are left out."""
        expressions = []
        problem = NoValue(place, "no value can satisfy this")
        for case in cases:
            try:
                expressions.append(self._shape(case.owns))
            except NoValue as error:
                problem = error
        if not expressions:
            raise problem
        return choice(*expressions)


def _written_size(expression: Expression) -> int:
    """How many symbols are written for the expression."""
    match expression:
        case Literal(text):
            return 1 + len(text)
        case Sequence(parts) | Choice(parts):
            return sum(map(_written_size, parts))
        case Repeat(item):
            return 1 + _written_size(item)
        case _:
            return 1
