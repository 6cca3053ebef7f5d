"""What the scripted engine says: a pure function of prompt and seed, and how it behaves. Knows no Triton.

Stands in Triton's version folder as well as in the tests' package, so it imports nothing of either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice

FIRST_ID = 1000
LAST_ID = 31_000
_MASK = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Behaviour for all requests; each field is a config parameter of the same name. -1 means never."""

    vocabulary_size: int = 49152
    context_length: int = 8192
    delay_microseconds: int = 0
    """Pause before each response."""
    tokens_per_response: int = 1
    fail_after: int = -1
    """End with an INTERNAL error after this many ids."""
    end_after: int = -1
    """End after this many ids, as if the model had ended."""
    endless: int = 0
    """1 = go on beyond request_output_len until cancelled."""
    greedy: int = 0
    """1 = each id follows from all before it, as at temperature 0; the seed has no effect."""


def script_from_parameters(parameters: Mapping[str, Mapping[str, str]]) -> Script:
    """Read the parameters of Triton's model configuration; unknown ones belong to the CPU engine."""
    names = {field.name for field in fields(Script)}
    return Script(**{name: int(value["string_value"]) for name, value in parameters.items() if name in names})


def scripted_ids(prompt_ids: Sequence[int], seed: int, count: int) -> list[int]:
    """The first `count` ids that the scripted engine gives for a prompt and a seed."""
    return list(islice(endless_ids(prompt_ids, seed), count))


def endless_ids(prompt_ids: Sequence[int], seed: int) -> Iterator[int]:
    """The ids, without end, all in [FIRST_ID, LAST_ID]: no special token of any model we serve is among them."""
    state = _mixed(seed)
    for token in prompt_ids:
        state = _mixed(state ^ token)
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        yield FIRST_ID + _mixed(state) % (LAST_ID - FIRST_ID + 1)


def greedy_ids(prompt_ids: Sequence[int]) -> Iterator[int]:
    """The ids of a script that is `greedy`, without end: a prompt that holds some of them gives those that follow."""
    state = 0
    for token in prompt_ids:
        state = _mixed(state ^ token)
    while True:
        token = FIRST_ID + _mixed(state) % (LAST_ID - FIRST_ID + 1)
        yield token
        state = _mixed(state ^ token)


def _mixed(value: int) -> int:
    """SplitMix64's finisher: neighbouring values become unrelated ones."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
