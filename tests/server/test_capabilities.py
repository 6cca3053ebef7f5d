"""What a model can't do is refused by name, and what GetModel says is what is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llamarpc.v1 import chat_pb2
from llamarpc.v1.text_generation_pb2 import GenerateRequest

from server.bundle import Bundle, read_bundle
from server.capabilities import capabilities_of, check_capabilities
from server.errors import AdapterNotFound, ModelNotFound, UnsupportedField
from tests.fakes import write_bundle

# Capability to the fields of a request that use it.
USES: dict[str, dict[str, Any]] = {
    "tools": {"tools": [chat_pb2.Tool()]},
    "functions": {"functions": [chat_pb2.FunctionCode()]},
    "json_object": {"response_format": chat_pb2.ResponseFormat(json_object=chat_pb2.JsonObjectFormat())},
    "json_schema": {"response_format": chat_pb2.ResponseFormat(json_schema="{}")},
    "regex": {"response_format": chat_pb2.ResponseFormat(regex="a")},
    "grammar": {"response_format": chat_pb2.ResponseFormat(grammar="a")},
}


def bundle(folder: Path, **changes: Any) -> Bundle:
    return read_bundle(write_bundle(folder, **changes))


def test_everything(tmp_path: Path) -> None:
    able = bundle(tmp_path, adapters={"poet": 1})
    capabilities = capabilities_of(able)
    assert all(getattr(capabilities, field.name) for field in capabilities.DESCRIPTOR.fields)
    for fields in USES.values():
        check_capabilities(GenerateRequest(**fields), able)
    check_capabilities(GenerateRequest(lora="poet", model="bytes-1"), able)


@pytest.mark.parametrize("capability", USES)
def test_an_engine_without_grammars(tmp_path: Path, capability: str) -> None:
    plain = bundle(tmp_path, guided_decoding=["json", "regex"])
    assert not getattr(capabilities_of(plain), capability)
    with pytest.raises(
        UnsupportedField, match="not supported by this model's engine: it has no guided decoding"
    ) as caught:
        check_capabilities(GenerateRequest(**USES[capability]), plain, path="generate_request.")
    assert caught.value.field == f"generate_request.{next(iter(USES[capability]))}"


def test_plain_requests_need_nothing(tmp_path: Path) -> None:
    plain = bundle(tmp_path, guided_decoding=[])
    check_capabilities(GenerateRequest(prompt="Hi"), plain)
    check_capabilities(GenerateRequest(response_format=chat_pb2.ResponseFormat(text=chat_pb2.TextFormat())), plain)
    assert capabilities_of(plain).time_limit


@pytest.mark.parametrize(
    ("adapters", "text"),
    [({}, "no LoRA adapter 'x'; it has none"), ({"b": 1, "a": 2}, "no LoRA adapter 'x'; there are a, b")],
)
def test_unknown_adapters(tmp_path: Path, adapters: dict[str, int], text: str) -> None:
    with pytest.raises(AdapterNotFound, match=text):
        check_capabilities(GenerateRequest(lora="x"), bundle(tmp_path, adapters=adapters))


def test_unknown_models(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        check_capabilities(GenerateRequest(model="gpt"), bundle(tmp_path))
