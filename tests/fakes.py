"""Fakes for tests: tokenizers, an engine that plays a script, a Triton on a real socket, and our server before them.

All sockets are on the loopback address, port 0. Knows no weights, no GPU and no network.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf import text_format
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status
from llamarpc.v1 import model_pb2_grpc, text_generation_pb2_grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from server.bundle import read_bundle
from server.chat.engine import EngineRequest
from server.config import Settings
from server.grpc_server import Server
from tests.waiting import until

# How long anything may take before a test gives up. Never waited for in a test that passes.
PATIENCE_SECONDS = 20.0

# -------------------------------------------------------------------------------- tokenizers


def _byte_characters() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2's encoder.py)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


BYTE_CHARACTERS = _byte_characters()
IM_START, IM_END = 256, 257

# Meta's own pattern, from the tokenizer.json of Llama 3.
_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# As Meta documents them.
LLAMA3_WORDS = {"system": 9125, "user": 882, "assistant": 78191, "\n\n": 271}
LLAMA3_SPECIALS = {
    "<|begin_of_text|>": 128000,
    "<|end_of_text|>": 128001,
    **{f"<|reserved_special_token_{index}|>": 128002 + index for index in range(4)},
    "<|start_header_id|>": 128006,
    "<|end_header_id|>": 128007,
    "<|reserved_special_token_4|>": 128008,
    "<|eot_id|>": 128009,
}


def byte_level(content: bytes) -> str:
    """How a byte-level vocabulary writes a token of these bytes."""
    return "".join(BYTE_CHARACTERS[byte] for byte in content)


def tokenizer_json(
    vocabulary: Mapping[str, int],
    *,
    specials: Mapping[str, int],
    plain_added: Mapping[str, int] | None = None,
    merges: Sequence[tuple[str, str]] = (),
    pattern: str | None = None,
    decoder: str = "ByteLevel",
) -> str:
    """Text of a tokenizer.json. Ids may have gaps."""
    byte_pieces = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    added = {**specials, **(plain_added or {})}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [
                {"id": id_, "content": content, "special": content in specials, **flags}
                for content, id_ in added.items()
            ],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_pieces]} if pattern else byte_pieces,
            "decoder": byte_pieces if decoder == "ByteLevel" else {"type": decoder},
            # The library keeps the ids of added tokens only where the model has them as well.
            "model": {"type": "BPE", "vocab": {**vocabulary, **added}, "merges": [list(pair) for pair in merges]},
        }
    )


def byte_tokenizer(*, more: Sequence[bytes] = ()) -> str:
    """Ids 0 to 255 are the bytes, 256 and 257 ChatML's control tokens; `more` byte strings follow, never encoded to."""
    vocabulary = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}
    vocabulary |= {byte_level(content): 258 + index for index, content in enumerate(more)}
    return tokenizer_json(vocabulary, specials={"<|im_start|>": IM_START, "<|im_end|>": IM_END})


def llama3_tokenizer() -> str:
    """A sparse Llama 3 vocabulary: the documented ids, the bytes in Meta's order, and what the merges need between."""
    printable_first = sorted(range(256), key=lambda byte: (ord(BYTE_CHARACTERS[byte]) > 255, byte))
    vocabulary = {BYTE_CHARACTERS[byte]: index for index, byte in enumerate(printable_first)}
    merges = []
    free_ids = iter(range(1_000, 2_000))
    for word, id_ in LLAMA3_WORDS.items():
        token = byte_level(word.encode())
        for end in range(2, len(token) + 1):
            merges.append((token[: end - 1], token[end - 1]))
            vocabulary[token[:end]] = id_ if end == len(token) else next(free_ids)
    return tokenizer_json(vocabulary, specials=LLAMA3_SPECIALS, merges=merges, pattern=_LLAMA3_PATTERN)


# -------------------------------------------------------------------------------- bundles

BUNDLE_FIELDS: dict[str, Any] = {
    "schema_version": 1,
    "model_id": "bytes-1",
    "display_name": "Bytes",
    "prompt_format": "chatml",
    "default_system_prompt": "",
    "end_ids": [IM_END],
    "pad_id": IM_END,
    "vocabulary_size": 258,
    "context_length": 1_000,
    "generation_defaults": {},
    "adapters": {},
    "guided_decoding": ["ebnf_grammar"],
    "engine": {"kind": "scripted", "version": "1", "source": "none", "source_sha256": "0", "parallel_requests": 8},
    "license": "apache-2.0",
    "files": {},
}


def write_bundle(folder: Path, *, tokenizer: str | None = None, **changes: Any) -> Path:
    """A bundle of the byte tokenizer; `changes` replace fields of bundle.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text(json.dumps({**BUNDLE_FIELDS, **changes}), encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer or byte_tokenizer(), encoding="utf-8")
    return folder


# -------------------------------------------------------------------------------- engines

# Token ids to send (with the byte tokenizer, bytes are ids), an error to raise, or an event to wait for.
Step: TypeAlias = Sequence[int] | Exception | asyncio.Event


class ScriptedEngine:
    """Plays the same script for every request, or the one that `script(request)` gives, up to `max_tokens` ids.

    `requests` are those it got, `produced` the number of ids that each of them was given, `running` how many go on.
    """

    address = "script"

    def __init__(self, script: Iterable[Step] | Callable[[EngineRequest], Iterable[Step]] = ()) -> None:
        self._script = script
        self.requests: list[EngineRequest] = []
        self.running = 0
        self.produced: list[int] = []
        self.ready = True
        self.differences: list[str] = []

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Sequence[int], None]:
        """See server.chat.engine."""
        index = len(self.requests)
        self.requests.append(request)
        self.produced.append(0)
        self.running += 1
        try:
            async for ids in self._play(request):
                self.produced[index] += len(ids)
                yield ids
        finally:
            self.running -= 1

    async def _play(self, request: EngineRequest) -> AsyncIterator[list[int]]:
        left = request.max_tokens
        for step in self._script(request) if callable(self._script) else self._script:
            await asyncio.sleep(0)
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                yield list(step[:left])
                left -= len(step)
                if left <= 0:
                    return

    async def is_ready(self, *, timeout_seconds: float) -> bool:
        """See server.health."""
        return self.ready

    async def contract_differences(self, *, timeout_seconds: float) -> list[str]:
        """See server.health."""
        return self.differences


# -------------------------------------------------------------------------------- Triton

# What TensorRT-LLM's config.pbtxt declares of the tensors in use, and one more that is optional.
TENSORRT_LLM_CONFIG = """
name: "tensorrt_llm"
max_batch_size: 64
model_transaction_policy { decoupled: true }
input { name: "input_ids" data_type: TYPE_INT32 dims: -1 allow_ragged_batch: true optional: true }
input { name: "input_lengths" data_type: TYPE_INT32 dims: 1 reshape { } }
input { name: "request_output_len" data_type: TYPE_INT32 dims: 1 reshape { } }
input { name: "end_id" data_type: TYPE_INT32 dims: 1 reshape { } optional: true }
input { name: "pad_id" data_type: TYPE_INT32 dims: 1 reshape { } optional: true }
input { name: "stop_words_list" data_type: TYPE_INT32 dims: [2, -1] allow_ragged_batch: true optional: true }
input { name: "temperature" data_type: TYPE_FP32 dims: 1 reshape { } optional: true }
input { name: "runtime_top_k" data_type: TYPE_INT32 dims: 1 reshape { } optional: true }
input { name: "runtime_top_p" data_type: TYPE_FP32 dims: 1 reshape { } optional: true }
input { name: "repetition_penalty" data_type: TYPE_FP32 dims: 1 reshape { } optional: true }
input { name: "presence_penalty" data_type: TYPE_FP32 dims: 1 reshape { } optional: true }
input { name: "frequency_penalty" data_type: TYPE_FP32 dims: 1 reshape { } optional: true }
input { name: "seed" data_type: TYPE_UINT64 dims: 1 reshape { } optional: true }
input { name: "streaming" data_type: TYPE_BOOL dims: 1 reshape { } optional: true }
input { name: "lora_task_id" data_type: TYPE_UINT64 dims: 1 reshape { } optional: true }
input { name: "guided_decoding_guide_type" data_type: TYPE_STRING dims: 1 allow_ragged_batch: true optional: true }
input { name: "guided_decoding_guide" data_type: TYPE_STRING dims: 1 allow_ragged_batch: true optional: true }
output { name: "output_ids" data_type: TYPE_INT32 dims: [-1, -1] }
output { name: "sequence_length" data_type: TYPE_INT32 dims: -1 }
output { name: "cum_log_probs" data_type: TYPE_FP32 dims: -1 }
"""


def tensorrt_llm_config() -> model_config_pb2.ModelConfig:
    """The configuration of a model that fits."""
    return text_format.Parse(TENSORRT_LLM_CONFIG, model_config_pb2.ModelConfig())


@dataclass(frozen=True, slots=True)
class Final:
    """The last response of a stream, with these ids."""

    ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Abort:
    """Ends the stream with a status."""

    code: grpc.StatusCode
    details: str = "no reason"


@dataclass(frozen=True, slots=True)
class InBandError:
    """An error as Triton sends it to callers that did not ask for statuses."""

    text: str


TritonStep: TypeAlias = Sequence[int] | Final | Abort | InBandError | asyncio.Event


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Plays one script for each ModelStreamInfer call and remembers what it was sent."""

    def __init__(self, *script: TritonStep) -> None:
        self.script = script
        self.config = tensorrt_llm_config()
        self.ready = True
        self.requests: list[service_pb2.ModelInferRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.running = 0
        self.cancelled = 0

    async def ModelReady(self, request: Any, context: Any) -> service_pb2.ModelReadyResponse:
        """Whether the model is there."""
        return service_pb2.ModelReadyResponse(ready=self.ready and request.name == "tensorrt_llm")

    async def ModelConfig(self, request: Any, context: Any) -> service_pb2.ModelConfigResponse:
        """The declared tensors."""
        return service_pb2.ModelConfigResponse(config=self.config)

    async def ModelStreamInfer(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        """The script, response by response."""
        self.running += 1
        self.metadata.append(dict(context.invocation_metadata()))
        try:
            self.requests.append(await anext(aiter(request_iterator)))
            for step in self.script:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, Abort):
                    await context.abort(step.code, step.details)
                else:
                    yield _stream_response(step)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def _stream_response(step: Sequence[int] | Final | InBandError) -> service_pb2.ModelStreamInferResponse:
    if isinstance(step, InBandError):
        return service_pb2.ModelStreamInferResponse(error_message=step.text)
    ids, final = (step.ids, True) if isinstance(step, Final) else (step, False)
    return service_pb2.ModelStreamInferResponse(infer_response=infer_response(ids, final=final))


def infer_response(
    ids: Sequence[int], *, final: bool, sequence_length: int | None = None
) -> service_pb2.ModelInferResponse:
    """A response as TensorRT-LLM streams it."""
    length = len(ids) if sequence_length is None else sequence_length
    response = service_pb2.ModelInferResponse(model_name="tensorrt_llm")
    response.outputs.add(name="output_ids", datatype="INT32", shape=(1, 1, len(ids)))
    response.raw_output_contents.append(struct.pack(f"<{len(ids)}i", *ids))
    response.outputs.add(name="sequence_length", datatype="INT32", shape=(1, 1))
    response.raw_output_contents.append(struct.pack("<i", length))
    response.parameters["triton_final_response"].bool_param = final
    return response


@asynccontextmanager
async def running_triton(triton: FakeTriton, *, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serves the fake; gives its address. Leaving the block kills it, streams and all."""
    grpc_server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, grpc_server)
    port = grpc_server.add_insecure_port(address)
    await grpc_server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await grpc_server.stop(None)


# -------------------------------------------------------------------------------- our server


class RunningServer:
    """A started server and a channel to it."""

    def __init__(self, server: Server, address: str, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.address = address
        self.channel = channel
        self.text: Any = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)


@asynccontextmanager
async def running_server(
    folder: Path,
    engine: Any,
    *,
    bundle: Mapping[str, Any] | None = None,
    channel_options: Sequence[tuple[str, Any]] = (),
    server_options: Mapping[str, Any] | None = None,
    wait: bool = True,
    **settings: Any,
) -> AsyncIterator[RunningServer]:
    """Our server with the byte tokenizer's bundle (changed by `bundle`) and the engine; `settings` change the rest."""
    write_bundle(folder, **(bundle or {}))
    wanted = Settings(address="127.0.0.1:0", bundle=folder, **settings)
    server = Server(wanted, read_bundle(folder), engine, **(server_options or {}))
    address = await server.start()
    try:
        if wait:
            await asyncio.wait_for(server.wait_until_serving(), PATIENCE_SECONDS)
        async with grpc.aio.insecure_channel(address, options=channel_options) as channel:
            yield RunningServer(server, address, channel)
    finally:
        await server.drain(0)


# -------------------------------------------------------------------------------- looking at results


async def eventually(condition: Callable[[], bool | Awaitable[bool]], *, what: str) -> None:
    """Returns once the condition holds; for what sends no signal."""
    await until(condition, seconds=PATIENCE_SECONDS, what=what)


def error_details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The google.rpc details of a failed call, by message name (ErrorInfo, BadRequest, RetryInfo)."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None, f"no details in {error}"
    found: dict[str, Any] = {}
    for packed in status.details:
        detail = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
        assert packed.Unpack(detail)
        found[type(detail).__name__] = detail
    return found
