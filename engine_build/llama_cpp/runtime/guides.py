"""Guided decoding with llguidance: which ids may come next so that the whole text is what the guide derives.

Knows ids and the bytes that each stands for; knows no logits, no llama.cpp and no Triton.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .deep_stack import on_deep_stack
from .ebnf import lark_from_ebnf
from .errors import RequestError
from .guide_time import MOST_SECONDS_FOR_A_TOKEN, TOO_AMBIGUOUS, GuideTime
from .guided import GuideText
from .sampling import SamplingError

try:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
except ImportError as error:
    raise ImportError("the package llguidance is not installed; run pip install 'llamarpc[embedded]'") from error

# A mask that would take more steps is not computed; 50,000 take about 5 ms, in bad grammars up to a second.
_LIMITS: Mapping[str, Any] = {
    "max_items_in_row": 10_000,
    "step_max_items": 50_000,
    "max_lexer_states": 50_000,
    "verbose_errors": False,
}
# For what is one large terminal to llguidance's lexer, which takes time in the square of this: here up to a second.
# Of EBNF every character is a terminal of its own.
_MOST_LEXER_FUEL = {"json_schema": 40_000, "regex": 40_000}
# Where only one text can come, allow all ways to write it in tokens, not just the tokenizer's own.
_OPTIONS = '%llguidance {"no_forcing": true}\n'
_CANNOT_FOLLOW = "the guide cannot be followed further: "
_PANICKED = "it is too large"
_LONGEST_REASON = 300
_KEPT_GUIDES = 32
_LONGEST_KEPT = 128 * 1024  # characters
_JSON_SCHEMA = '{"type": ["object", "array"]}'  # what XGrammar's own JSON grammar takes


class Guides:
    """Compiles guides for one vocabulary. Made once: llguidance sorts the vocabulary into a tree."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        """`tokens`: the bytes of each id as they appear in text; empty for ids that stand for no text."""
        self._tokens = tokens
        self._tokenizer = LLTokenizer(TokenizerWrapper(_Vocabulary(tokens)))
        # Conversations come back with the same tools, which are ebnf_grammar.
        self._kept = lru_cache(_KEPT_GUIDES)(self._compiled)

    def start(self, guide: GuideText, *, end_id: int = -1, stop_words: Iterable[tuple[int, ...]] = ()) -> MatcherGuide:
        """Compile `guide`. May take seconds for a large one, without holding up other threads.

        The output ends at `end_id`, and at stop words of a single id without text: these are allowed where the guide
        may end, and nowhere else.

        Raises:
            RequestError: with llguidance's reason.
        """
        words = {word[0] for word in stop_words if len(word) == 1 and not self._tokens[word[0]]}
        endings = sorted(words | ({end_id} if end_id >= 0 else set()))
        keep = guide.kind == "ebnf_grammar" and len(guide.text) <= _LONGEST_KEPT
        with _panics_as(RequestError, "guided_decoding_guide: "):
            matcher, first_bits = self._kept(guide) if keep else self._compiled(guide)
            matcher = matcher.deep_copy()
        return MatcherGuide(matcher, first_bits, len(self._tokens), endings)

    def _compiled(self, guide: GuideText) -> tuple[LLMatcher, bytes | None]:
        return on_deep_stack(lambda: self._matcher(guide))

    def _matcher(self, guide: GuideText) -> tuple[LLMatcher, bytes | None]:
        """The matcher, and what may come first: often its costliest answer, and not for the engine to wait for."""
        lark = LLMatcher.grammar_from_lark(_OPTIONS + _LARK_FROM[guide.kind](guide.text))
        limits = LLParserLimits(initial_lexer_fuel=_MOST_LEXER_FUEL.get(guide.kind), **_LIMITS)
        matcher = LLMatcher(self._tokenizer, lark, log_level=0, limits=limits)
        if matcher.is_error():
            raise RequestError(f"guided_decoding_guide: {_reason(matcher)}")
        started = time.thread_time()
        first_bits = _bits(matcher)
        if time.thread_time() - started > MOST_SECONDS_FOR_A_TOKEN:
            raise RequestError(f"guided_decoding_guide: {TOO_AMBIGUOUS}")
        if first_bits is not None and not any(first_bits):
            raise RequestError("guided_decoding_guide: no text can come of it")
        return matcher, first_bits


class MatcherGuide:
    """One guide at work; see Guide."""

    def __init__(
        self, matcher: LLMatcher, first_bits: bytes | None, vocabulary_size: int, endings: Sequence[int]
    ) -> None:
        self._matcher = matcher
        self._first_bits = first_bits
        self._vocabulary_size = vocabulary_size
        self._endings = endings
        self._time = GuideTime()

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        if token in self._endings:
            return self.may_end
        with self._checked():
            return self._matcher.validate_tokens([token]) == 1

    def mask(self) -> NDArray[np.bool_]:
        """For every id of the vocabulary, False if it may not come next; nearly all True if that takes long to say."""
        with self._checked():
            bits = self._first_bits or _bits(self._matcher)
        size = self._vocabulary_size
        if bits is None:
            mask = np.ones(size, np.bool_)
        else:
            mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=size, bitorder="little").view(np.bool_)
        mask[self._endings] = self.may_end
        return mask

    def accept(self, token: int) -> None:
        """Go on behind `token`, which must be allowed."""
        if token not in self._endings:
            self._first_bits = None
            with self._checked():
                self._matcher.consume_token(token)
            self._time.end()

    @property
    def may_end(self) -> bool:
        """Whether the output may end here."""
        with _panics_as(SamplingError, _CANNOT_FOLLOW):
            return self._matcher.is_accepting()

    @property
    def is_complete(self) -> bool:
        """Whether it may end here, and nothing may follow. Can be late: then no id is allowed where it may end."""
        with _panics_as(SamplingError, _CANNOT_FOLLOW):
            return self._matcher.is_stopped() and self._matcher.is_accepting()

    @contextmanager
    def _checked(self) -> Iterator[None]:
        self._time.begin()
        with _panics_as(SamplingError, _CANNOT_FOLLOW):
            yield
            if self._matcher.is_error():
                raise SamplingError(_CANNOT_FOLLOW + _reason(self._matcher))
        self._time.check()


class _Vocabulary:
    """What llguidance asks of a tokenizer. Its end id is one past the last: endings are ours, and differ by request."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.tokens = [*tokens, b""]
        self.eos_token_id = len(tokens)
        self.bos_token_id = None
        self.special_token_ids: Sequence[int] = ()

    def __call__(self, text: bytes) -> list[int]:
        """Asked only for the tokens of a text that must come, which _OPTIONS turns off."""
        return []


@contextmanager
def _panics_as(error_class: type[Exception], beginning: str) -> Iterator[None]:
    """Rust's panics are no Exceptions in Python: nobody above would catch one, and all requests would end."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as panic:
        raise error_class(f"{beginning}{_PANICKED}") from panic


def _bits(matcher: LLMatcher) -> bytes | None:
    """The mask, a bit for each id; None where it would take too long."""
    asked = matcher.deep_copy()  # shares what is large; a limit that is reached leaves a matcher useless
    bits = asked.compute_bitmask()
    if not asked.is_error():
        return bits
    return bytes(len(bits)) if asked.get_error().startswith("NoExtension") else None


def _lark_from_json_schema(text: str) -> str:
    try:
        json.loads(text)  # refuses what is no JSON, and with it any Lark text behind the schema
    except (ValueError, RecursionError) as error:
        raise RequestError(f"guided_decoding_guide is not usable as JSON: {error}") from error
    return f"start: %json {text}"


def _lark_from_regex(text: str) -> str:
    lark: str = json.loads(LLMatcher.grammar_from_regex(text))["grammars"][0]["lark_grammar"]
    return lark


_LARK_FROM: Mapping[str, Callable[[str], str]] = {
    "json": lambda _: _lark_from_json_schema(_JSON_SCHEMA),
    "json_schema": _lark_from_json_schema,
    "regex": _lark_from_regex,
    "ebnf_grammar": lark_from_ebnf,
}


def _reason(matcher: LLMatcher) -> str:
    """llguidance's reason without the Lark text that it quotes around it, which is not the caller's."""
    text = matcher.get_error()
    if text.startswith("panic"):
        return _PANICKED
    if "Too many items" in text or "Current row has" in text:
        return TOO_AMBIGUOUS
    text = re.sub(r"^at \d+\(\d+\): |\n +1 \| .*|<non-verbose/>", "", text, flags=re.DOTALL)
    text = " ".join(text.split())
    # It may also quote the whole guide before the reason.
    return text if len(text) <= _LONGEST_REASON else f"{text[:100]} ... {text[105 - _LONGEST_REASON :]}"
