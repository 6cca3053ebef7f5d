"""The tensors of the `tensorrt_llm` model: names and types, requests from our values, responses to token ids.

Names, types and shapes are TensorRT-LLM 1.2.1's
(triton_backend/all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt). Every tensor has a leading batch dimension
of 1, so a scalar travels as [1, 1]. Knows no channels and no errors.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from ..chat.engine import EngineRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """What we expect of a tensor that the served model declares: KServe data type, dimensions without batch."""

    datatype: str
    dims: tuple[int, ...]


_SCALAR = (1,)

# Everything that a request may carry, and what is read of a response. The start-up check compares the served model
# with these.
INPUTS = {
    "input_ids": TensorType(datatype="INT32", dims=(-1,)),
    "input_lengths": TensorType(datatype="INT32", dims=_SCALAR),
    "request_output_len": TensorType(datatype="INT32", dims=_SCALAR),
    "end_id": TensorType(datatype="INT32", dims=_SCALAR),
    "pad_id": TensorType(datatype="INT32", dims=_SCALAR),
    "stop_words_list": TensorType(datatype="INT32", dims=(2, -1)),
    "temperature": TensorType(datatype="FP32", dims=_SCALAR),
    "runtime_top_k": TensorType(datatype="INT32", dims=_SCALAR),
    "runtime_top_p": TensorType(datatype="FP32", dims=_SCALAR),
    "repetition_penalty": TensorType(datatype="FP32", dims=_SCALAR),
    "presence_penalty": TensorType(datatype="FP32", dims=_SCALAR),
    "frequency_penalty": TensorType(datatype="FP32", dims=_SCALAR),
    "seed": TensorType(datatype="UINT64", dims=_SCALAR),
    "streaming": TensorType(datatype="BOOL", dims=_SCALAR),
    "lora_task_id": TensorType(datatype="UINT64", dims=_SCALAR),
    "guided_decoding_guide_type": TensorType(datatype="BYTES", dims=_SCALAR),
    "guided_decoding_guide": TensorType(datatype="BYTES", dims=_SCALAR),
}
OUTPUTS = {
    "output_ids": TensorType(datatype="INT32", dims=(-1, -1)),
    "sequence_length": TensorType(datatype="INT32", dims=(-1,)),
}

# Not part of every request.
OPTIONAL_INPUTS = frozenset({"stop_words_list", "lora_task_id", "guided_decoding_guide_type", "guided_decoding_guide"})

_PACK = {"INT32": "<i", "UINT64": "<Q", "FP32": "<f", "BOOL": "<?"}
_read_int32 = struct.Struct("<i").unpack_from
_INT32 = array("i").typecode if array("i").itemsize == 4 else "l"


def build_request(model_name: str, request: EngineRequest) -> ModelInferRequest:
    """The request as Triton takes it: streaming, with everything explicit that the engine would otherwise guess."""
    message = ModelInferRequest(model_name=model_name, id=request.request_id)
    _add(message, "input_ids", (1, len(request.prompt_ids)), _int32_bytes(request.prompt_ids))
    if request.stop_ids:
        words = _stop_words(request.stop_ids)
        _add(message, "stop_words_list", (1, 2, len(words) // 2), _int32_bytes(words))
    for name, value in _scalars(request).items():
        _add(message, name, (1, 1), struct.pack(_PACK[INPUTS[name].datatype], value))
    if request.guide is not None:
        _add(message, "guided_decoding_guide_type", (1, 1), _text_bytes("ebnf_grammar"))
        _add(message, "guided_decoding_guide", (1, 1), _text_bytes(request.guide))
    for name in OUTPUTS:
        message.outputs.add(name=name)
    return message


def read_token_ids(response: ModelInferResponse) -> Sequence[int]:
    """The new token ids of one streamed response; possibly none. The engine model answers with one beam."""
    ids: Sequence[int] = ()
    length: int | None = None
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=False):
        if output.name == "output_ids":
            ids = array(_INT32, raw)
        elif output.name == "sequence_length" and raw:
            length = _read_int32(raw)[0]
    return ids if length is None else ids[:length]


def is_final(response: ModelInferResponse) -> bool:
    """Whether nothing follows this response."""
    return bool(response.parameters["triton_final_response"].bool_param)


def _scalars(request: EngineRequest) -> dict[str, int | float | bool]:
    sampling = request.sampling
    adapter = {} if request.adapter_id is None else {"lora_task_id": request.adapter_id}
    return {
        **adapter,
        "input_lengths": len(request.prompt_ids),
        "request_output_len": request.max_tokens,
        "end_id": request.end_id,
        "pad_id": request.pad_id,
        "temperature": sampling.temperature,
        "runtime_top_k": sampling.top_k,
        "runtime_top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "streaming": True,
    }


def _stop_words(ids: Sequence[int]) -> list[int]:
    """One-token stop words as the engine takes them: a row of all ids, then a row of each word's end offset."""
    return [*ids, *range(1, len(ids) + 1)]


def _add(message: ModelInferRequest, name: str, shape: tuple[int, ...], content: bytes) -> None:
    message.inputs.add(name=name, datatype=INPUTS[name].datatype, shape=shape)
    message.raw_input_contents.append(content)


def _text_bytes(text: str) -> bytes:
    """A string tensor of one element: its length in front of it."""
    content = text.encode()
    return struct.pack("<I", len(content)) + content


def _int32_bytes(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)
