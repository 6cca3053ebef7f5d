"""A bundle's description with nothing behind it."""

from dataclasses import replace
from typing import Any

from engine_build.bundle import Bundle, Engine

ENGINE = Engine(kind="llama-cpp", version="x 1", source="m.gguf", source_sha256="ab", parallel_requests=2)
BUNDLE = Bundle(
    model_id="tiny",
    display_name="Tiny ünïcode 🦙",
    prompt_format="chatml",
    default_system_prompt="",
    end_ids=(2, 7),
    pad_id=2,
    vocabulary_size=300,
    context_length=2048,
    generation_defaults={"temperature": 0.6, "top_k": 40},
    adapters={"french": 3},
    guided_decoding=("json",),
    engine=ENGINE,
    license="mit",
    files={},
    inputs_sha256="",
)


def bundle(**changes: Any) -> Bundle:
    """The sample with some fields changed."""
    return replace(BUNDLE, **changes)
