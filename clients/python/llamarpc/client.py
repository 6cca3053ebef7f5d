"""A blocking client of a llamarpc server: requests from keyword arguments, failures as CallError.

Knows nothing of terminals. There is no twin for asyncio: with grpc.aio (or a channel of your own) use the stubs in
`llamarpc.v1`, which are as short to write, and `CallError.from_rpc_error`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, TypeAlias, get_args

import grpc
from typing_extensions import TypedDict, Unpack

from .credentials import Pem, channel_credentials, token_metadata
from .errors import CallError
from .v1.chat_pb2 import FunctionCode, Message, ResponseFormat, Tool, ToolChoice
from .v1.model_pb2 import ListModelsRequest, ListModelsResponse, Model
from .v1.model_pb2_grpc import ModelServiceStub
from .v1.text_generation_pb2 import (
    CountTokensRequest,
    CountTokensResponse,
    GenerateRequest,
    GenerateResponse,
    StreamGenerateResponse,
)
from .v1.text_generation_pb2_grpc import TextGenerationServiceStub

DEFAULT_ADDRESS = "127.0.0.1:50051"
Priority: TypeAlias = Literal["high", "normal", "low"]
"""How urgent a call is to a server that has more of them than it can compute together."""
PRIORITIES: tuple[Priority, ...] = get_args(Priority)

_PRIORITY_KEY = "x-priority"
_Metadata: TypeAlias = tuple[tuple[str, str], ...]

_MIB = 1024 * 1024
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],  # every method
            # gRPC tries a stream again only while no event of it has come, so nothing is told twice.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_CHANNEL_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # no limit: a long prompt is quiet for a while
    ("grpc.max_receive_message_length", 16 * _MIB),
    ("grpc.enable_http_proxy", 0),  # else $http_proxy would catch calls to this very machine
)


class GenerateOptions(TypedDict, total=False):
    """GenerateRequest's fields as keyword arguments, explained in text_generation.proto.

    None, like leaving an option out, leaves the field to the model's default. `stop` may be one string.
    """

    model: str
    tools: Sequence[Tool]
    functions: Sequence[FunctionCode]
    raw: bool
    lora: str
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    stop: str | Sequence[str]
    tool_choice: ToolChoice | None
    response_format: ResponseFormat | None
    time_limit: timedelta | None
    request_id: str


class Client:
    """A connection to the server at `address` (host:port, or any gRPC target), for any number of threads.

    On this machine's loopback addresses and sockets it is plaintext, anywhere else TLS, with the authorities that this
    machine trusts or those in `root_certificates`, which ask for TLS on loopback too. `certificate`, with the
    intermediate ones, and `private_key` are for servers that want to see one. `insecure` is plaintext anywhere: what
    is between here and there can then read the token and all texts. PEM is given as a pathlib.Path or as bytes.

    `token` is sent with every call. `timeout_seconds` is the deadline of each call, for a stream until its end; None is
    no limit. Calls that the server could not take (UNAVAILABLE) are tried up to 4 times.

    It connects with the first call. Making it raises ValueError for what can't be, OSError for files that can't be
    read. Methods raise CallError, and ValueError or TypeError for values that don't fit their field. Use it in a
    `with` block, or close() it:

        with Client() as client:
            for event in client.stream("Why is the sky blue?"):
                print(event.response, end="", flush=True)
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        token: str | None = None,
        root_certificates: Pem | None = None,
        certificate: Pem | None = None,
        private_key: Pem | None = None,
        insecure: bool = False,
        timeout_seconds: float | None = None,
    ) -> None:
        credentials = channel_credentials(
            address,
            root_certificates=root_certificates,
            certificate=certificate,
            private_key=private_key,
            insecure=insecure,
        )
        # Sent by each call and not as gRPC's call credentials, which need TLS and take a thread for every call.
        self._metadata = token_metadata(token)
        self._timeout_seconds = timeout_seconds
        self._channel = _open_channel(address, credentials)
        self._text_generation = TextGenerationServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancels what is running and lets the connection go."""
        self._channel.close()

    def stream(
        self, prompt: str | Sequence[Message], *, priority: Priority | None = None, **options: Unpack[GenerateOptions]
    ) -> Generator[StreamGenerateResponse, None, None]:
        """Events of an answer as it is generated: `started`, pieces of text in `response`, `finished`.

        `prompt` is one question or a conversation. The call begins with the first event asked for. Leaving the loop, or
        close() on what this returns, cancels it. While the server has more calls than it can compute together, those of
        a higher `priority` come first; None is normal.
        """
        return self._events(_generate_request(prompt, options), _priority_metadata(priority))

    def generate(
        self, prompt: str | Sequence[Message], *, priority: Priority | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerateResponse:
        """The whole answer at once. Takes what stream() takes."""
        request, metadata = _generate_request(prompt, options), _priority_metadata(priority)
        response: GenerateResponse = self._call(self._text_generation.Generate, request, metadata)
        return response

    def count_tokens(
        self, prompt: str | Sequence[Message], *, include_prompt: bool = False, **options: Unpack[GenerateOptions]
    ) -> CountTokensResponse:
        """Tokens of a prompt as the model sees it; with `include_prompt` also its text and token ids."""
        request = _generate_request(prompt, options)
        counted = CountTokensRequest(generate_request=request, include_prompt=include_prompt)
        response: CountTokensResponse = self._call(self._text_generation.CountTokens, counted)
        return response

    def models(self) -> list[Model]:
        """The served models, with their limits, defaults and capabilities."""
        response: ListModelsResponse = self._call(self._models.ListModels, ListModelsRequest())
        return list(response.models)

    def _call(self, method: Callable[..., Any], request: object, metadata: _Metadata = ()) -> Any:
        try:
            return method(request, timeout=self._timeout_seconds, metadata=self._metadata + metadata)
        except grpc.RpcError as error:
            raise CallError.from_rpc_error(error) from error

    def _events(self, request: GenerateRequest, metadata: _Metadata) -> Generator[StreamGenerateResponse, None, None]:
        call = self._call(self._text_generation.StreamGenerate, request, metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise CallError.from_rpc_error(error) from error
        finally:
            call.cancel()  # does nothing to a call that has ended


def _open_channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
    return grpc.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)


def _priority_metadata(priority: Priority | None) -> _Metadata:
    if priority is None:
        return ()
    if priority not in PRIORITIES:
        raise ValueError(f"priority must be one of {', '.join(PRIORITIES)}, not {priority!r}")
    return ((_PRIORITY_KEY, priority),)


def _generate_request(prompt: str | Sequence[Message], options: GenerateOptions) -> GenerateRequest:
    unknown = set(options) - set(GenerateOptions.__annotations__)
    if unknown:
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}")
    fields: dict[str, Any] = {**options}
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    if isinstance(prompt, str):
        return GenerateRequest(prompt=prompt, **fields)
    return GenerateRequest(messages=prompt, **fields)
