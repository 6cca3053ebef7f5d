"""A step's plan: who computes how many tokens, and with which adapter.

Pure arithmetic on generations; knows no threads and no llama.cpp.
"""

from .generation import Generation
from .language_model import Row

Plan = list[tuple[Generation, int]]


def by_adapter(plan: Plan, *, first: int | None) -> list[tuple[int | None, Plan]]:
    """The plan in groups that share an adapter: llama.cpp applies one to a whole batch.

    The adapter `first` is the one that is applied already, and leads: another one costs llama.cpp a few milliseconds.
    Then come those without any, then the others by their number.
    """
    groups: dict[int | None, Plan] = {}
    for generation, count in plan:
        groups.setdefault(generation.request.adapter, []).append((generation, count))
    return sorted(groups.items(), key=lambda group: (group[0] != first, group[0] or 0))


def rows_of(group: Plan) -> list[Row]:
    """What the language model has to compute, generation after generation."""
    return [row for generation, count in group for row in _rows(generation, count)]


def _rows(generation: Generation, count: int) -> list[Row]:
    last = count - 1 if count == generation.pending else -1
    return [
        Row(token, generation.slot, generation.computed + index, index == last)
        for index, token in enumerate(generation.next_tokens(count))
    ]
