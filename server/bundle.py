"""Reads a bundle: the folder that `engine_build` makes and that says who the model is.

Knows the two files that concern the server, bundle.json and tokenizer.json; what Triton serves lies beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

from .chat.prompt_formats import PROMPT_FORMATS, PromptFormat

SCHEMA_VERSION = 1
DEFAULT_PARALLEL_REQUESTS = 64


class BundleError(Exception):
    """The bundle can't be used; the text names the file, what is wrong and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationDefaults:
    """Settings of requests that leave them out: the retired API's, unless the model's publisher gives others."""

    max_tokens: int = 256
    temperature: float = 0.6
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Who the model is. `end_ids[0]` is the engine's end id; the others end a turn as well."""

    path: Path
    model_id: str
    display_name: str
    prompt_format: PromptFormat
    default_system_prompt: str
    end_ids: tuple[int, ...]
    pad_id: int
    context_length: int
    engine_kind: str
    engine_version: str
    engine_source: str
    license: str
    adapters: Mapping[str, int]
    parallel_requests: int = DEFAULT_PARALLEL_REQUESTS
    """How many requests the engine computes together."""
    guided_decoding: frozenset[str] = frozenset()
    defaults: GenerationDefaults = field(default_factory=GenerationDefaults)

    @property
    def tokenizer_path(self) -> Path:
        """The model's vocabulary."""
        return self.path / "tokenizer.json"

    @property
    def model_repository(self) -> Path:
        """What Triton serves."""
        return self.path / "model_repository"


def read_bundle(path: Path) -> Bundle:
    """Reads `path`/bundle.json. Raises BundleError."""
    file = path / "bundle.json"
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{path} is no bundle: it has no bundle.json; make one with 'python -m engine_build'"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} can't be read: {error}") from error
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{file} has schema_version {version!r}, this server reads {SCHEMA_VERSION}; build the bundle again"
        )
    try:
        return _bundle_from_fields(path, fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{file}: wrong or missing field: {error!r}; build the bundle again") from error


def _bundle_from_fields(path: Path, fields: Mapping[str, Any]) -> Bundle:
    prompt_format = PROMPT_FORMATS.get(fields["prompt_format"])
    if prompt_format is None:
        raise ValueError(f"prompt_format {fields['prompt_format']!r} is none of {', '.join(PROMPT_FORMATS)}")
    end_ids = tuple(int(end_id) for end_id in fields["end_ids"])
    if not end_ids:
        raise ValueError("end_ids is empty")
    context_length = int(fields["context_length"])
    if context_length < 1:
        raise ValueError(f"context_length is {context_length}")
    engine = fields["engine"]
    return Bundle(
        path=path,
        model_id=str(fields["model_id"]),
        display_name=str(fields["display_name"]),
        prompt_format=prompt_format,
        default_system_prompt=str(fields["default_system_prompt"]),
        end_ids=end_ids,
        pad_id=int(fields["pad_id"]),
        context_length=context_length,
        engine_kind=str(engine["kind"]),
        engine_version=str(engine["version"]),
        engine_source=str(engine["source"]),
        parallel_requests=int(engine.get("parallel_requests", DEFAULT_PARALLEL_REQUESTS)),
        license=str(fields.get("license") or ""),
        adapters={str(name): int(task_id) for name, task_id in fields["adapters"].items()},
        guided_decoding=frozenset(str(mode) for mode in fields.get("guided_decoding", ())),
        defaults=_defaults_from_fields(fields["generation_defaults"]),
    )


def _defaults_from_fields(given: Mapping[str, Any]) -> GenerationDefaults:
    kinds = {each.name: type(each.default) for each in dataclass_fields(GenerationDefaults)}
    for name, value in given.items():
        allowed = (int, float) if kinds.get(name) is float else (int,)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise ValueError(f"generation_defaults.{name} is {value!r}")
    return GenerationDefaults(**given)
