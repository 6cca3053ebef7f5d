"""Token ids held against llama.cpp itself, and for Llama 3 against Meta's encoder."""

from __future__ import annotations

import base64
import ctypes
import importlib.util
import random
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import pytest
from tokenizers import Tokenizer, pre_tokenizers

from engine_build.errors import TokenizerError
from engine_build.llama_cpp.download import DEFAULT_WEIGHTS, PackagedFile, fetch
from engine_build.llama_cpp.gguf_reader import Vocabulary, read_gguf
from engine_build.llama_cpp.runtime.library import open_library
from engine_build.llama_cpp.tokenizer import build_tokenizer
from engine_build.spec import cache_dir_from

from ..gguf_samples import CONTROL_TOKENS, NORMAL_TOKENS, write_gguf
from .llama3_ids import LLAMA3_IDS

pytestmark = pytest.mark.real_parts

_XLLAMACPP = Path(importlib.util.find_spec("xllamacpp").origin).parent  # type: ignore[union-attr, arg-type]
_META_TOKENIZER = PackagedFile(
    title="Llama 3's tokenizer",
    package="llama_models",
    version="0.3.0",
    wheel_sha256="7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f",
    wheel_bytes=6_612_946,
    member="llama_models/llama3/tokenizer.model",
    sha256="82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55",
    size_bytes=2_183_982,
)

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_ALPHABET = {byte: chr(byte) for byte in _PRINTABLE}
_ALPHABET |= {byte: chr(256 + index) for index, byte in enumerate(byte for byte in range(256) if byte not in _ALPHABET)}


def _tokenizer(vocabulary: Vocabulary, *control_tokens: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(build_tokenizer(vocabulary, control_tokens=control_tokens))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _texts() -> list[str]:
    """Written and random texts, all planes of Unicode among them, of characters that Python's own tables know.

    llama.cpp and `tokenizers` have tables of different Unicode versions: all 1.1 million code points were compared
    once, and just the 4,395 that Unicode 16 assigned (Garay, Todhri and the like) were cut differently.
    """
    generator = random.Random(20261122)
    texts = [text for text, _ in LLAMA3_IDS]
    for _ in range(600):
        limit = generator.choice([0x80, 0x250, 0x3000, 0x10000, 0x1F700, 0x110000])
        points = (generator.randrange(1, limit) for _ in range(generator.randint(1, 40)))
        characters = [chr(point) for point in points if unicodedata.category(chr(point)) not in ("Cn", "Cs")]
        texts.append("".join(each + generator.choice(["", "", "", " ", "\n", "'s", "12"]) for each in characters))
    return texts


@pytest.fixture(scope="module")
def smollm2() -> Vocabulary:
    return read_gguf(fetch(DEFAULT_WEIGHTS, cache_dir_from())).vocabulary


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[Callable[[Path], Callable[[str], list[int]]]]:
    """Opens the vocabulary of a file in llama.cpp, as a function from text to ids."""
    library, models = open_library(), []
    llama_tokenize = ctypes.CDLL(str(next(_XLLAMACPP.glob("*.so")))).llama_tokenize
    ints = ctypes.POINTER(ctypes.c_int32)
    llama_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ints, ctypes.c_int32]
    llama_tokenize.argtypes += [ctypes.c_bool, ctypes.c_bool]

    def open_vocabulary(path: Path) -> Callable[[str], list[int]]:
        params = library.llama_model_default_params()
        params.vocab_only = True
        models.append(library.llama_model_load_from_file(str(path).encode(), params))
        vocabulary = library.llama_model_get_vocab(models[-1])

        def tokenize(text: str) -> list[int]:
            content = text.encode()
            buffer = (ctypes.c_int32 * (len(content) + 8))()
            count = llama_tokenize(vocabulary, content, len(content), buffer, len(buffer), False, False)
            return list(buffer[:count])

        return tokenize

    yield open_vocabulary
    for model in models:
        library.llama_model_free(model)


@pytest.mark.parametrize("pre_tokenizer", ["smollm", "llama-bpe", "gpt-2"])
def test_ids_are_llama_cpps(
    smollm2: Vocabulary,
    llama_cpp: Callable[[Path], Callable[[str], list[int]]],
    tmp_path: Path,
    pre_tokenizer: str,
) -> None:
    """SmolLM2's vocabulary under each pre-tokenizer's name: the merges are the same, the cutting differs."""
    path = write_gguf(
        tmp_path / "m.gguf",
        metadata={
            "tokenizer.ggml.pre": pre_tokenizer,
            "tokenizer.ggml.tokens": list(smollm2.tokens),
            "tokenizer.ggml.token_type": list(smollm2.token_types),
            "tokenizer.ggml.merges": list(smollm2.merges),
            "llama.feed_forward_length": 64,
            "llama.rope.dimension_count": 16,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
        },
    )
    tokenize = llama_cpp(path)
    tokenizer = _tokenizer(read_gguf(path).vocabulary)
    # Both drop bytes that the vocabulary lacks (some control characters), but llama.cpp after merging their neighbours
    # and `tokenizers` before. And llama.cpp does not take a long s for an s in "'s", as Meta's encoder and we do.
    lacking = {byte for byte, character in _ALPHABET.items() if character not in smollm2.tokens}
    texts = [text for text in _texts() if lacking.isdisjoint(text.encode()) and "\u017f" not in text]
    assert len(texts) > 500
    assert [text for text in texts if _ids(tokenizer, text) != tokenize(text)] == []


@pytest.fixture(scope="module")
def llama3() -> Vocabulary:
    """Llama 3's vocabulary, converted to what a GGUF file holds from Meta's list of byte strings and their ranks."""
    lines = fetch(_META_TOKENIZER, cache_dir_from()).read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    merges = []
    for token, rank in ranks.items():
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [
            (rank, ranks[left], ranks[right], left, right) for left, right in pairs if left in ranks and right in ranks
        ]
        merges += known
    special = [f"<|reserved_special_token_{index}|>" for index in range(256)]
    special[9] = "<|eot_id|>"
    return Vocabulary(
        model="gpt2",
        pre_tokenizer="llama-bpe",
        tokens=(*(_byte_level(token) for token in sorted(ranks, key=ranks.__getitem__)), *special),
        token_types=(1,) * len(ranks) + (3,) * len(special),
        merges=tuple(f"{_byte_level(left)} {_byte_level(right)}" for *_, left, right in sorted(merges)),
        begin_id=128000,
        end_id=128009,
        end_of_turn_id=None,
        end_of_message_id=None,
        padding_id=None,
        adds_begin_token=True,
    )


def _byte_level(token: bytes) -> str:
    return "".join(_ALPHABET[byte] for byte in token)


def test_llama3_ids_are_metas(llama3: Vocabulary) -> None:
    tokenizer = _tokenizer(llama3, "<|eot_id|>")
    assert {text: _ids(tokenizer, text) for text, _ in LLAMA3_IDS} == dict(LLAMA3_IDS)
    assert all(tokenizer.decode(ids, skip_special_tokens=False) == text for text, ids in LLAMA3_IDS)
    tokenizer.encode_special_tokens = False
    assert _ids(tokenizer, "hi<|eot_id|>") == [6151, 128009]


def _vocabulary(tmp_path: Path, **arguments: object) -> Vocabulary:
    return read_gguf(write_gguf(tmp_path / "m.gguf", **arguments)).vocabulary  # type: ignore[arg-type]


def test_control_tokens_are_special_and_defined_ones_are_not(tmp_path: Path) -> None:
    vocabulary = _vocabulary(tmp_path, user_tokens=["<tool>", "<|turn|>"])
    tokenizer = _tokenizer(vocabulary, "<|im_end|>", "<|turn|>")
    added = {token.content: token.special for token in tokenizer.get_added_tokens_decoder().values()}
    assert added == {**dict.fromkeys(CONTROL_TOKENS, True), "<tool>": False, "<|turn|>": True}
    defined = len(CONTROL_TOKENS) + len(NORMAL_TOKENS)
    assert _ids(tokenizer, "<tool>") == [defined]
    assert len(_ids(tokenizer, "<|turn|>")) > 1
    assert len(_ids(tokenizer, "<|im_end|>")) > 1
    tokenizer.encode_special_tokens = False
    assert _ids(tokenizer, "<|im_end|><tool><|turn|>") == [2, defined, defined + 1]


def test_merges_are_applied_and_undone(tmp_path: Path) -> None:
    tokenizer = _tokenizer(_vocabulary(tmp_path))
    ids = _ids(tokenizer, "hello w🦙")
    assert [tokenizer.id_to_token(id_) for id_ in ids[:2]] == ["hello", "Ġw"]
    assert tokenizer.decode(ids, skip_special_tokens=False) == "hello w🦙"


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"tokenizer.ggml.model": "llama"}, r"of the kind 'llama'; only 'gpt2' \(byte-level BPE\)"),
        ({"tokenizer.ggml.model": None}, "of the kind 'unknown'"),
        ({"tokenizer.ggml.pre": "deepseek-llm"}, "'deepseek-llm'; supported are gpt-2, llama-bpe, .*smollm"),
        ({"tokenizer.ggml.pre": None}, r"pre-tokenizer is '\(none named\)'"),
        ({"tokenizer.ggml.merges": ["h e", "x yz"]}, "merges don't fit its tokens"),
        ({"tokenizer.ggml.merges": ["he"]}, "merges don't fit its tokens"),
    ],
)
def test_other_vocabularies_are_refused(tmp_path: Path, metadata: dict[str, object], text: str) -> None:
    with pytest.raises(TokenizerError, match=text):
        build_tokenizer(_vocabulary(tmp_path, metadata=metadata), control_tokens=[])


def test_tokens_that_cannot_be_are_refused(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    for tokens, kinds, text in (
        ([*alphabet, "a b"], None, "token 'a b' .type 1. does not belong"),
        ([*alphabet, "!"], None, "token '!' twice"),
        ([*alphabet, "<0x0A>"], gguf.TokenType.BYTE, "type 6. does not belong"),
    ):
        types = [1] * len(alphabet) + [int(kinds or 1)]
        metadata = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": None}
        with pytest.raises(TokenizerError, match=text):
            build_tokenizer(_vocabulary(tmp_path, metadata=metadata), control_tokens=[])


def test_the_formats_tokens_have_to_exist(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"lacks the prompt format's tokens <\|eot_id\|>"):
        build_tokenizer(_vocabulary(tmp_path), control_tokens=["<|im_end|>", "<|eot_id|>"])
