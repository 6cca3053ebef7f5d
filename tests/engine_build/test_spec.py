from pathlib import Path
from typing import Any

import pytest

from engine_build.errors import SpecError
from engine_build.spec import LlamaCppSpec, cache_dir_from


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("--parallel-requests", "parallel_requests", 0),
        ("--threads", "threads", -1),
        ("--prefill-chunk", "prefill_chunk", 0),
        ("--context-length", "context_length", 10),
        ("--model-id", "model_id", "two words"),
        ("--model-id", "model_id", ""),
        ("--lora", "adapters", {"": Path("a.gguf")}),
        ("--lora", "adapters", {"two words": Path("a.gguf")}),
        ("--lora", "adapters", {"a" * 65: Path("a.gguf")}),
        ("--lora", "adapters", {"a/b": Path("a.gguf")}),
        ("--lora", "adapters", {"good": Path("a.gguf"), "näh": Path("b.gguf")}),
    ],
)
def test_options_out_of_range_are_named(option: str, field: str, value: Any) -> None:
    arguments: dict[str, Any] = {"out": Path("b"), "cache_dir": Path("c"), field: value}
    with pytest.raises(SpecError, match=f"^{option} "):
        LlamaCppSpec(**arguments)


@pytest.mark.parametrize("model_id", ["llama-3-8b", "@cf/meta/llama-3-8b-instruct", "A_1.0"])
def test_usual_model_ids_pass(model_id: str) -> None:
    assert LlamaCppSpec(out=Path("b"), cache_dir=Path("c"), model_id=model_id).model_id == model_id


@pytest.mark.parametrize("name", ["pirate", "a", "French-v1.2_b", "x" * 64])
def test_usual_adapter_names_pass(name: str) -> None:
    assert LlamaCppSpec(out=Path("b"), cache_dir=Path("c"), adapters={name: Path("a.gguf")}).adapters


def test_the_cache_folder_can_be_named(tmp_path: Path) -> None:
    assert cache_dir_from({"LLAMARPC_CACHE_DIR": str(tmp_path)}) == tmp_path
    assert cache_dir_from({"LLAMARPC_CACHE_DIR": ""}).name == "llamarpc"
    assert cache_dir_from({}).name == "llamarpc"
