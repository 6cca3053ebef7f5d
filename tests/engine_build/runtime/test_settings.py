"""The parameters of config.pbtxt."""

from __future__ import annotations

import pytest

from engine_build import triton_config
from engine_build.llama_cpp.runtime.settings import EngineSettings, settings_from_parameters

GIVEN = {"gguf": "m.gguf", "parallel_requests": "3", "context_length": "64", "threads": "2", "prefill_chunk": "16"}


def parameters(**values: str) -> dict[str, dict[str, str]]:
    return {name: {"string_value": text} for name, text in {**GIVEN, **values}.items()}


def test_reads_what_the_build_writes() -> None:
    config = triton_config.cpu_model_config(
        gguf="m.gguf", parallel_requests=3, context_length=64, threads=2, prefill_chunk=16
    )
    written = {name: {"string_value": value.string_value} for name, value in config.parameters.items()}
    assert settings_from_parameters(written) == EngineSettings(
        gguf="m.gguf", parallel_requests=3, context_length=64, threads=2, prefill_chunk=16
    )


def test_no_threads_means_the_usable_cores() -> None:
    assert settings_from_parameters(parameters(threads="0")).threads >= 1


def test_reads_the_adapters_that_the_build_writes() -> None:
    files = {1: "lora-1.gguf", 2: "lora-2.gguf"}
    config = triton_config.cpu_model_config(
        gguf="m.gguf", parallel_requests=3, context_length=64, threads=2, prefill_chunk=16, adapters=files
    )
    text = config.parameters["lora_adapters"].string_value
    assert settings_from_parameters(parameters(lora_adapters=text)).adapters == files


@pytest.mark.parametrize("given", [{}, {"lora_adapters": ""}])
def test_older_bundles_have_no_adapters(given: dict[str, str]) -> None:
    assert settings_from_parameters(parameters(**given)).adapters == {}


@pytest.mark.parametrize(
    "text", ["lora-1.gguf", "1=", "=a.gguf", "one=a.gguf", "1=a.gguf,", "1=a.gguf,1=b.gguf", "-1=a"]
)
def test_refuses_adapters_that_make_no_sense(text: str) -> None:
    with pytest.raises(ValueError, match=r"parameter lora_adapters of config\.pbtxt is .*; it must be like 1=lora-1"):
        settings_from_parameters(parameters(lora_adapters=text))


@pytest.mark.parametrize(
    ("name", "text"),
    [("parallel_requests", "0"), ("threads", "-1"), ("context_length", "many"), ("prefill_chunk", "")],
)
def test_refuses(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        settings_from_parameters(parameters(**{name: text}))


def test_names_what_is_missing() -> None:
    left = parameters()
    del left["threads"]
    with pytest.raises(ValueError, match="lacks the parameter threads"):
        settings_from_parameters(left)
