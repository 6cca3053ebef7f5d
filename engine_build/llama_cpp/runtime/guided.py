"""What a request says about guided decoding, and what the sampler asks of a guide while its text is generated.

Knows tensors; knows no grammars and no llguidance.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from .errors import RequestError
from .tensors import TensorReader, Tensors

KINDS = ("json", "json_schema", "regex", "ebnf_grammar")
MOST_BYTES = 1024 * 1024
# llguidance's time for these grows with the square of what they hold.
MOST_BYTES_OF = {"json_schema": 64 * 1024, "regex": 64 * 1024}

_KIND_TENSOR = "guided_decoding_guide_type"
_TEXT_TENSOR = "guided_decoding_guide"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuideText:
    """A guide as it came: one of `KINDS`, and the schema, expression or grammar; empty for `json`."""

    kind: str
    text: str


class Guide(Protocol):
    """Follows the output of one request, id by id. Its methods raise SamplingError where it has to give up."""

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        ...

    def mask(self) -> NDArray[Any]:
        """For every id of the vocabulary, False if it may not come next: bool [vocabulary].

        Nearly all True where it would take too long to say.
        """
        ...

    def accept(self, token: int) -> None:
        """Go on behind `token`, which must be allowed."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether the output may end here."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether it may end here, and nothing may follow."""
        ...


def guide_text_from_tensors(tensors: Tensors) -> GuideText | None:
    """The request's guide; None where it has none.

    Raises:
        RequestError: an unknown kind, a kind without its text or the reverse, or a text that is too long or not UTF-8.
    """
    reader = TensorReader(tensors)
    kind = reader.text(_KIND_TENSOR, MOST_BYTES)
    text = reader.text(_TEXT_TENSOR, MOST_BYTES_OF.get(kind, MOST_BYTES))
    if not kind and not text:
        return None
    if kind not in KINDS:
        found = f"is {kind[:50]!r}" if kind else "is missing"
        raise RequestError(f"{_KIND_TENSOR} {found}; it must be one of {', '.join(KINDS)}")
    if kind == "json" and text:
        raise RequestError(f"{_TEXT_TENSOR} must be empty where {_KIND_TENSOR} is json; json_schema takes a schema")
    if kind != "json" and not text:
        raise RequestError(f"{_TEXT_TENSOR} is missing; {_KIND_TENSOR} {kind} needs it")
    return GuideText(kind=kind, text=text)
