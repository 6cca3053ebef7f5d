"""Whether rules made from a schema can be used: each derives a text, and none stands for itself. Knows no schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from .expressions import EMPTY, Choice, Expression, GuideError, Reference, Rules
from .json_values import RULES, references
from .nullable import productive_rules


def check_rules(rules: Rules, places: Mapping[str, str]) -> None:
    """Raises GuideError with the place that `places` has for the offending rule. JSON's own rules are known."""
    try:
        TopologicalSorter({name: dict.fromkeys(_alone(rule)) for name, rule in rules.items()}).prepare()
    except CycleError as error:
        place = next(places[name] for name in error.args[1] if name in places)
        raise GuideError(place, "leads back to itself without a property or item in between") from None
    # A rule that needs no other always derives something; most of a grammar is in those.
    needing = {name: rule if next(references(rule), None) is not None else EMPTY for name, rule in rules.items()}
    productive = productive_rules({**RULES, **needing})
    for name in rules:
        if name not in productive:
            raise GuideError(places[name], "no value can satisfy this: it needs itself inside, without end")


def _alone(expression: Expression) -> Iterator[str]:
    """Rules that the expression may consist of and nothing else. JSON texts begin with something else than a rule."""
    if isinstance(expression, Reference):
        yield expression.name
    elif isinstance(expression, Choice):
        for option in expression.options:
            yield from _alone(option)
