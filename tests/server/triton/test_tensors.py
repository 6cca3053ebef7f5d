"""Requests byte for byte as TensorRT-LLM takes them, and responses of every shape read back."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from tritonclient.grpc.service_pb2 import ModelInferResponse

from server.chat.engine import EngineRequest
from server.chat.model import Sampling
from server.triton.tensors import INPUTS, OPTIONAL_INPUTS, OUTPUTS, build_request, is_final, read_token_ids
from tests.fakes import infer_response

SAMPLING = Sampling(
    temperature=0.5,
    top_p=0.25,
    top_k=40,
    seed=9_999_999_999,
    repetition_penalty=1.5,
    frequency_penalty=-2.0,
    presence_penalty=2.0,
)


def engine_request(**changes: Any) -> EngineRequest:
    fields: dict[str, Any] = {
        "request_id": "r-1",
        "prompt_ids": [128000, 9125, 0],
        "max_tokens": 256,
        "end_id": 128009,
        "pad_id": 128001,
        "stop_ids": (),
        "sampling": SAMPLING,
        "timeout_seconds": None,
    }
    return EngineRequest(**{**fields, **changes})


def tensors_of(request: EngineRequest) -> dict[str, tuple[str, list[int], bytes]]:
    message = build_request("m", request)
    assert len(message.inputs) == len(message.raw_input_contents)
    return {
        tensor.name: (tensor.datatype, list(tensor.shape), raw)
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    }


def test_exact_bytes_and_shapes() -> None:
    assert tensors_of(engine_request()) == {
        "input_ids": ("INT32", [1, 3], b"\x00\xf4\x01\x00\xa5\x23\x00\x00\x00\x00\x00\x00"),
        "input_lengths": ("INT32", [1, 1], b"\x03\x00\x00\x00"),
        "request_output_len": ("INT32", [1, 1], b"\x00\x01\x00\x00"),
        "end_id": ("INT32", [1, 1], b"\x09\xf4\x01\x00"),
        "pad_id": ("INT32", [1, 1], b"\x01\xf4\x01\x00"),
        "temperature": ("FP32", [1, 1], b"\x00\x00\x00\x3f"),
        "runtime_top_k": ("INT32", [1, 1], b"\x28\x00\x00\x00"),
        "runtime_top_p": ("FP32", [1, 1], b"\x00\x00\x80\x3e"),
        "repetition_penalty": ("FP32", [1, 1], b"\x00\x00\xc0\x3f"),
        "presence_penalty": ("FP32", [1, 1], b"\x00\x00\x00\x40"),
        "frequency_penalty": ("FP32", [1, 1], b"\x00\x00\x00\xc0"),
        "seed": ("UINT64", [1, 1], b"\xff\xe3\x0b\x54\x02\x00\x00\x00"),
        "streaming": ("BOOL", [1, 1], b"\x01"),
    }


@pytest.mark.parametrize(
    ("stop_ids", "shape", "rows"),
    [((128001,), [1, 2, 1], [128001, 1]), ((128001, 128008, 5), [1, 2, 3], [128001, 128008, 5, 1, 2, 3])],
)
def test_further_end_ids_are_one_token_stop_words(stop_ids: tuple[int, ...], shape: list[int], rows: list[int]) -> None:
    expected = ("INT32", shape, struct.pack(f"<{len(rows)}i", *rows))
    assert tensors_of(engine_request(stop_ids=stop_ids))["stop_words_list"] == expected


def test_model_id_and_outputs() -> None:
    message = build_request("tensorrt_llm", engine_request())
    assert (message.model_name, message.id) == ("tensorrt_llm", "r-1")
    assert [output.name for output in message.outputs] == ["output_ids", "sequence_length"] == list(OUTPUTS)


def test_every_tensor_is_declared_to_the_start_up_check() -> None:
    sent = tensors_of(engine_request(stop_ids=(1,), guide="root ::= [0-9]", adapter_id=2))
    assert set(sent) == set(INPUTS)
    assert {name: datatype for name, (datatype, _, _) in sent.items()} == {
        name: tensor.datatype for name, tensor in INPUTS.items()
    }


def test_guide_and_adapter() -> None:
    sent = tensors_of(engine_request(guide="é", adapter_id=2**33))
    assert sent["guided_decoding_guide_type"] == ("BYTES", [1, 1], b"\x0c\x00\x00\x00ebnf_grammar")
    assert sent["guided_decoding_guide"] == ("BYTES", [1, 1], b"\x02\x00\x00\x00\xc3\xa9")
    assert sent["lora_task_id"] == ("UINT64", [1, 1], b"\x00\x00\x00\x00\x02\x00\x00\x00")
    assert not OPTIONAL_INPUTS & set(tensors_of(engine_request()))


def test_a_prompt_of_thousands() -> None:
    _, shape, raw = tensors_of(engine_request(prompt_ids=range(8_000)))["input_ids"]
    assert (shape, len(raw)) == ([1, 8_000], 32_000)


@pytest.mark.parametrize(
    ("ids", "sequence_length", "expected"),
    [
        pytest.param([5], None, [5], id="one"),
        pytest.param([5, 6, 128009], None, [5, 6, 128009], id="several"),
        pytest.param([], None, [], id="empty"),
        pytest.param([5, 6, -1, -1], 2, [5, 6], id="padded"),
        pytest.param([-1], 0, [], id="only_padding"),
        pytest.param([5, 6], 9, [5, 6], id="length_beyond_what_came"),
    ],
)
@pytest.mark.parametrize("final", [False, True])
def test_responses(ids: list[int], sequence_length: int | None, expected: list[int], final: bool) -> None:
    response = infer_response(ids, final=final, sequence_length=sequence_length)
    assert list(read_token_ids(response)) == expected
    assert is_final(response) is final


def test_response_with_its_outputs_the_other_way_round() -> None:
    response = infer_response([5, 6, -1], final=False, sequence_length=2)
    outputs, contents = list(response.outputs)[::-1], list(response.raw_output_contents)[::-1]
    turned = ModelInferResponse(outputs=outputs, raw_output_contents=contents)
    assert list(read_token_ids(turned)) == [5, 6]


def test_response_without_tensors() -> None:
    """As Triton sends where a decoupled model ends its stream without data."""
    response = ModelInferResponse()
    response.parameters["triton_final_response"].bool_param = True
    assert list(read_token_ids(response)) == []
    assert is_final(response)
    assert not is_final(ModelInferResponse())


def test_response_without_a_length() -> None:
    response = ModelInferResponse(raw_output_contents=[struct.pack("<2i", 5, 6)])
    response.outputs.add(name="output_ids", datatype="INT32", shape=(1, 1, 2))
    assert list(read_token_ids(response)) == [5, 6]
