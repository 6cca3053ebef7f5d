"""Turns a GGUF vocabulary into a Hugging Face `tokenizers` definition that gives the same ids.

Only byte-level BPE with a pre-tokenizer from the table below: how text is cut before merging decides the ids, and
GGUF gives just a name for it. SmolLM2's ids were compared with llama.cpp's for every code point: they differ in two
corners only, scripts that Unicode 16 added and control characters that the vocabulary has no token for.

Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from ..errors import TokenizerError
from .gguf_reader import Vocabulary

_MODEL = "gpt2"  # GGUF's name for byte-level BPE
# Token types, as in llama.h.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 1, 2, 3, 4, 5
# From Meta's tokenizer.py (github.com/meta-llama/llama3).
_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTokenizer:
    """How text is cut before merging. `ignores_merges`: a piece that is itself a token is not merged step by step."""

    build: Callable[[], pre_tokenizers.PreTokenizer]
    ignores_merges: bool = False


def _byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _single_digits() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level()])


def _llama3() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


_LLAMA3 = PreTokenizer(build=_llama3, ignores_merges=True)
PRE_TOKENIZERS = {
    "gpt-2": PreTokenizer(build=_byte_level),
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "smollm": PreTokenizer(build=_single_digits),
}


def build_tokenizer(vocabulary: Vocabulary, *, control_tokens: Iterable[str]) -> str:
    """The text of a tokenizer.json.

    `control_tokens`: names that have to be control tokens whatever the file calls them (the prompt format's own), so
    that text can't forge them. Raises TokenizerError where the vocabulary is of an unknown kind or lacks one of them.
    """
    if vocabulary.model != _MODEL:
        raise TokenizerError(
            f"the tokenizer is of the kind {vocabulary.model or 'unknown'!r}; "
            f"only {_MODEL!r} (byte-level BPE) is supported"
        )
    pre_tokenizer = PRE_TOKENIZERS.get(vocabulary.pre_tokenizer)
    if pre_tokenizer is None:
        found, known = vocabulary.pre_tokenizer or "(none named)", ", ".join(PRE_TOKENIZERS)
        raise TokenizerError(f"the pre-tokenizer is {found!r}; supported are {known}")
    ids = _ids_of(vocabulary.tokens)
    if missing := sorted(set(control_tokens) - ids.keys()):
        raise TokenizerError(f"the vocabulary lacks the prompt format's tokens {', '.join(missing)}")
    tokenizer = Tokenizer(_merging_model(vocabulary, ids, pre_tokenizer))
    tokenizer.pre_tokenizer = pre_tokenizer.build()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(_added_tokens(vocabulary, frozenset(control_tokens)))
    return tokenizer.to_str()


def _merging_model(vocabulary: Vocabulary, ids: dict[str, int], pre_tokenizer: PreTokenizer) -> models.BPE:
    pairs: list[tuple[str, str]] = []
    for merge in vocabulary.merges:
        left, _, right = merge.partition(" ")
        pairs.append((left, right))
    try:
        return models.BPE(vocab=ids, merges=pairs, ignore_merges=pre_tokenizer.ignores_merges)
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"the vocabulary's merges don't fit its tokens: {error}") from error


def _ids_of(tokens: tuple[str, ...]) -> dict[str, int]:
    ids = {token: id_ for id_, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        twice = next(token for id_, token in enumerate(tokens) if ids[token] != id_)
        raise TokenizerError(f"the vocabulary has the token {twice!r} twice")
    return ids


def _added_tokens(vocabulary: Vocabulary, control_tokens: frozenset[str]) -> list[AddedToken]:
    """Tokens that are found before merging: control tokens, and those that the model's author defined."""
    added = []
    alphabet = frozenset(pre_tokenizers.ByteLevel.alphabet())
    for token, kind in zip(vocabulary.tokens, vocabulary.token_types, strict=True):
        special = kind in (_UNKNOWN, _CONTROL, _UNUSED) or token in control_tokens
        if special or kind == _USER_DEFINED:
            added.append(AddedToken(token, special=special, normalized=False))
        elif kind != _NORMAL or not alphabet.issuperset(token):
            raise TokenizerError(f"the token {token!r} (type {kind}) does not belong in a byte-level vocabulary")
    return added
