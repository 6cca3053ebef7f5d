"""Starts a real Triton with a model repository made for a test, and speaks the raw engine contract to it.

The scripted engine stands behind the same contract as the CPU engine, but its ids are known beforehand (see
`tests.scripted_engine`), and it is ready without any weights.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput, service_pb2, service_pb2_grpc
from tritonclient.grpc._utils import _get_inference_request  # the raw stub gives us gRPC's own cancel and metadata

from engine_build import triton_config
from engine_build.contract import INPUTS, MODEL_NAME, TensorSpec
from engine_build.llama_cpp.build import RUNTIME_DIR
from server.embedded import EmbeddedTriton
from server.triton_installation import assemble

SCRIPTED_ENGINE_DIR = Path(__file__).parent / "scripted_engine"

_INPUTS: Mapping[str, TensorSpec] = {spec.name: spec for spec in INPUTS}
_NUMPY_TYPES: Mapping[str, Any] = {
    "TYPE_INT32": np.int32,
    "TYPE_UINT64": np.uint64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_BOOL": np.bool_,
    "TYPE_STRING": np.object_,
}
_TRITON_ERRORS_END_THE_STREAM = (("triton_grpc_error", "true"),)


def cache_dir() -> Path:
    """The user's cache folder of the project: the assembled Triton and the default model are reused between runs."""
    from engine_build.spec import cache_dir_from

    return cache_dir_from()


def write_model(repository: Path, *, files: Mapping[str, Path], parameters: Mapping[str, str] | None = None) -> None:
    """Write the model `tensorrt_llm`: config.pbtxt by engine_build's writer, `files` by name into version folder 1.

    `parameters` overrides or adds config parameters.
    """
    version = repository / MODEL_NAME / "1"
    version.mkdir(parents=True)
    config = triton_config.cpu_model_config(
        gguf="model.gguf", parallel_requests=8, context_length=8192, threads=0, prefill_chunk=64
    )
    for key, value in (parameters or {}).items():
        config.parameters[key].string_value = value
    (repository / MODEL_NAME / "config.pbtxt").write_text(triton_config.to_text(config))
    for name, source in files.items():
        shutil.copy(source, version / name)


def scripted_repository(folder: Path, **script: object) -> Path:
    """A model repository with the scripted engine; `script` as in `tests.scripted_engine.script.Script`."""
    files = {path.name: path for path in RUNTIME_DIR.glob("*.py")}
    files |= {name: SCRIPTED_ENGINE_DIR / name for name in ("model.py", "script.py")}
    write_model(folder, files=files, parameters={key: str(value) for key, value in script.items()})
    return folder


def llama_cpp_repository(folder: Path, gguf: Path, **parameters: object) -> Path:
    """A model repository with the CPU engine and `gguf`; `parameters` override those of config.pbtxt."""
    files = {path.name: path for path in RUNTIME_DIR.glob("*.py")}
    write_model(folder, files=files, parameters={key: str(value) for key, value in parameters.items()})
    os.symlink(gguf, folder / MODEL_NAME / "1" / "model.gguf")
    return folder


@asynccontextmanager
async def run_triton(repository: Path, log_path: Path) -> AsyncIterator[EmbeddedTriton]:
    """A ready Triton that serves `repository`."""
    triton = EmbeddedTriton(assemble(cache_dir()), log_path=log_path)
    await triton.start(repository)
    try:
        yield triton
    finally:
        await triton.stop()


def tensors_of(prompt: list[int], max_new_tokens: int, **values: Any) -> dict[str, NDArray[Any]]:
    """Batched input tensors by name; scalars may be given as plain numbers, lists as [[...]] without the batch."""
    given = {"input_ids": prompt, "input_lengths": len(prompt), "request_output_len": max_new_tokens, **values}
    return {name: _batched(_INPUTS[name], value) for name, value in given.items() if value is not None}


def word_list(*words: list[int]) -> list[list[int]]:
    """The two rows of stop_words_list or bad_words_list."""
    ids = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words]).tolist()
    return [ids, ends + [-1] * (len(ids) - len(ends))]


def _batched(spec: TensorSpec, value: Any) -> NDArray[Any]:
    array = np.array(value, _NUMPY_TYPES[spec.data_type])
    return array.reshape(1, 1) if spec.scalar else array[np.newaxis]


@dataclass(slots=True)
class Response:
    """One message of a stream: tensors by name, and whether Triton called it the last."""

    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    final: bool = False

    @property
    def ids(self) -> list[int]:
        """The new ids."""
        ids: list[int] = self.tensors["output_ids"].reshape(-1).tolist()
        return ids


class EngineClient:
    """The raw contract over gRPC: one ModelStreamInfer per request, errors as gRPC statuses."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def __aenter__(self) -> EngineClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    def open(self, tensors: Mapping[str, NDArray[Any]], *, request_id: str = "", outputs: tuple[str, ...] = ()) -> Any:
        """Send a request; the gRPC call that is returned yields raw messages and can be cancelled."""
        call = self.stub.ModelStreamInfer(metadata=_TRITON_ERRORS_END_THE_STREAM)
        return _opened(call, _raw_request(tensors, request_id, outputs))

    async def stream(
        self, tensors: Mapping[str, NDArray[Any]], *, request_id: str = "", outputs: tuple[str, ...] = ()
    ) -> AsyncIterator[Response]:
        """Send a request and yield its responses until the last."""
        call = await self.open(tensors, request_id=request_id, outputs=outputs)
        async for message in call:
            response = read_response(message)
            yield response
            if response.final:
                await call.done_writing()

    async def generate(self, tensors: Mapping[str, NDArray[Any]], **options: Any) -> list[int]:
        """All ids of a request, streamed or not."""
        return [token async for response in self.stream(tensors, **options) for token in response.ids]


async def _opened(call: Any, request: service_pb2.ModelInferRequest) -> Any:
    await call.write(request)
    return call


def read_response(message: service_pb2.ModelStreamInferResponse) -> Response:
    """The tensors of a raw message."""
    infer = message.infer_response
    tensors = {
        output.name: np.frombuffer(raw, _NUMPY_TYPES[f"TYPE_{output.datatype}"]).reshape(output.shape)
        for output, raw in zip(infer.outputs, infer.raw_output_contents, strict=True)
    }
    return Response(tensors=tensors, final=infer.parameters["triton_final_response"].bool_param)


def _raw_request(
    tensors: Mapping[str, NDArray[Any]], request_id: str, outputs: tuple[str, ...]
) -> service_pb2.ModelInferRequest:
    inputs = []
    for name, tensor in tensors.items():
        data_type = _INPUTS[name].data_type.removeprefix("TYPE_").replace("STRING", "BYTES")
        tensor_input = InferInput(name, list(tensor.shape), data_type)
        tensor_input.set_data_from_numpy(tensor)
        inputs.append(tensor_input)
    return _get_inference_request(
        model_name=MODEL_NAME,
        inputs=inputs,
        model_version="",
        request_id=request_id,
        outputs=[InferRequestedOutput(name) for name in outputs] or None,
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters=None,
    )
