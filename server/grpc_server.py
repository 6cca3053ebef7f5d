"""The gRPC server: services, health, reflection and limits on one port, from start to drain.

Knows no signals, no embedded Triton and no command line; `serve.py` wires those.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from llamarpc.v1 import model_pb2, model_pb2_grpc, text_generation_pb2, text_generation_pb2_grpc

from .bundle import Bundle
from .chat.engine import Engine
from .chat.generate import TextGenerator
from .chat.rendering import PromptRenderer
from .chat.tokenizer import Tokenizer
from .check import TextLimits
from .config import Settings
from .health import HealthMonitor, HealthService, WatchedEngine
from .interceptors import ErrorInterceptor
from .service import ModelService, TextGenerationService

SERVICES = (
    text_generation_pb2.DESCRIPTOR.services_by_name["TextGenerationService"].full_name,
    model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
)

# A caller that vanished without a word (a closed lid, a dead node) gives its slot back after this, not after hours.
_PING_CALLERS_MILLISECONDS = 30_000
_PING_TIMEOUT_MILLISECONDS = 10_000
# Callers may ping every 30 seconds, streams or not; by default gRPC answers that with GOAWAY.
_LEAST_PING_INTERVAL_MILLISECONDS = 20_000


class ListenError(Exception):
    """The address can't be listened on; the text says what to do."""


class ServedEngine(Engine, WatchedEngine, Protocol):
    """An engine that generates and whose health can be watched."""


class Server:
    """A gRPC server for one bundle and one engine."""

    def __init__(self, settings: Settings, bundle: Bundle, engine: ServedEngine) -> None:
        """Builds everything, listens to nothing yet. Raises TokenizerError."""
        self._settings = settings
        self._health = HealthService(SERVICES)
        self._monitor = HealthMonitor(engine, self._health)
        self._polling: asyncio.Task[None] | None = None
        self._grpc = grpc.aio.server(interceptors=[ErrorInterceptor()], options=_server_options(settings))
        generator = _text_generator(settings, bundle, engine)
        limits = TextLimits(
            field_characters=settings.max_field_characters, prompt_characters=settings.max_prompt_characters
        )
        text_generation_pb2_grpc.add_TextGenerationServiceServicer_to_server(
            TextGenerationService(bundle=bundle, generator=generator, limits=limits),
            self._grpc,
        )
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(bundle=bundle), self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if settings.reflection:
            health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
            reflection.enable_server_reflection((*SERVICES, health_name, reflection.SERVICE_NAME), self._grpc)

    async def start(self) -> str:
        """Listens; gives the address with the port in use. Raises ListenError where the address can't be had."""
        address = self._settings.address
        try:
            port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise ListenError(
                f"can't listen on {address}: is another server running there? Choose with --address"
            ) from error
        await self._grpc.start()
        self._polling = asyncio.create_task(self._monitor.run())
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def wait_until_serving(self) -> None:
        """Returns once the engine has been seen ready."""
        await self._health.wait_until_serving()

    async def drain(self, seconds: float) -> None:
        """NOT_SERVING, no new calls; running ones may finish for so long, then they are cancelled."""
        self._health.drain()
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling])
        await self._grpc.stop(seconds)


def _text_generator(settings: Settings, bundle: Bundle, engine: ServedEngine) -> TextGenerator:
    renderer = PromptRenderer(
        tokenizer=Tokenizer.load(bundle.tokenizer_path),
        prompt_format=bundle.prompt_format,
        default_system_prompt=bundle.default_system_prompt,
    )
    return TextGenerator(
        renderer=renderer,
        engine=engine,
        end_ids=bundle.end_ids,
        pad_id=bundle.pad_id,
        context_length=bundle.context_length,
        buffer_tokens=settings.buffer_tokens,
    )


def _server_options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a port in use is an error, not shared in silence
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_INTERVAL_MILLISECONDS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", _PING_CALLERS_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MILLISECONDS),
        ("grpc.http2.max_pings_without_data", 0),
    ]
