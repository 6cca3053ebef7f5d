"""A vocabulary in which text tells token ids: the scripted engine's id 1234 is the text " 1234"; the rest is bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.scripted_engine.script import FIRST_ID, LAST_ID

START_ID, END_ID = 256, 257


def numbers_tokenizer() -> str:
    """The text of its tokenizer.json."""
    bytes_alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: id_ for id_, character in enumerate(bytes_alphabet)}
    vocabulary |= {f"Ġ{id_}": id_ for id_ in range(FIRST_ID, LAST_ID + 1)}
    vocabulary |= {"<|im_start|>": START_ID, "<|im_end|>": END_ID}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    definition: str = tokenizer.to_str()
    return definition


def ids_of(text: str) -> list[int]:
    """The scripted ids that a text tells."""
    return [int(number) for number in text.split()]


def write_numbers_bundle(folder: Path, **changes: Any) -> None:
    """What the server reads of a bundle whose vocabulary writes each of the scripted engine's ids as its number."""
    fields = {
        "schema_version": 1,
        "model_id": "scripted",
        "display_name": "Scripted",
        "prompt_format": "chatml",
        "default_system_prompt": "",
        "end_ids": [END_ID],
        "pad_id": END_ID,
        "context_length": 8192,
        "generation_defaults": {},
        "adapters": {},
        "engine": {"kind": "scripted", "version": "0", "source": "script"},
        **changes,
    }
    (folder / "tokenizer.json").write_text(numbers_tokenizer(), encoding="utf-8")
    (folder / "bundle.json").write_text(json.dumps(fields), encoding="utf-8")
