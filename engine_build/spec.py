"""What is to be built: the options of a build as one value, checked on construction. Knows no file formats."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from .errors import SpecError

CACHE_VARIABLE = "LLAMARPC_CACHE_DIR"
DEFAULT_PARALLEL_REQUESTS = 8
DEFAULT_PREFILL_CHUNK = 64
_MIN_CONTEXT_LENGTH = 64
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MODEL_ID = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._/@-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppSpec:
    """Options of `engine_build llama-cpp`. None means: as the weights file says. Raises SpecError naming the option."""

    out: Path
    gguf: Path | None = None
    """Weights; None = the default model, fetched into `cache_dir`."""
    cache_dir: Path
    model_id: str | None = None
    prompt_format: str | None = None
    """Overrides the detection, unverified."""
    context_length: int | None = None
    """Tokens of prompt and reply together, for each request."""
    parallel_requests: int = DEFAULT_PARALLEL_REQUESTS
    threads: int = 0
    """0 = as many as the process that serves may use cores."""
    prefill_chunk: int = DEFAULT_PREFILL_CHUNK
    """Prompt tokens computed in one step, at most."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """LoRA files by the names that callers will use; their task ids are 1, 2, ... in this order."""
    force: bool = False
    """Replace a bundle that is there already."""

    def __post_init__(self) -> None:
        _check_range("--parallel-requests", self.parallel_requests, 1, 256)
        _check_range("--threads", self.threads, 0, 1024)
        _check_range("--prefill-chunk", self.prefill_chunk, 1, 4096)
        if self.context_length is not None:
            _check_range("--context-length", self.context_length, _MIN_CONTEXT_LENGTH, 1 << 24)
        if self.model_id is not None and not _MODEL_ID.fullmatch(self.model_id):
            raise SpecError(f"--model-id {self.model_id!r}: use letters, digits and . _ / @ - only")
        for name in self.adapters:
            if not _ADAPTER_NAME.fullmatch(name):
                raise SpecError(f"--lora {name!r}: an adapter's name is 1 to 64 letters, digits and . _ -")


def cache_dir_from(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder for downloaded models: LLAMARPC_CACHE_DIR, or the platform's cache folder of the user."""
    return Path(environment.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("llamarpc")).expanduser()


def _check_range(option: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SpecError(f"{option} {value}: must be from {low} to {high}")
