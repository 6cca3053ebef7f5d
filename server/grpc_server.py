"""The gRPC server: services, health, reflection and limits on one port, from start to drain.

Knows no signals, no embedded Triton and no command line; `serve.py` wires those.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from llamarpc.v1 import model_pb2, model_pb2_grpc, text_generation_pb2, text_generation_pb2_grpc

from .admission import Admission, AdmissionLimits
from .bundle import Bundle
from .call_limits import CallLimits
from .call_log import log_call
from .calls import Calls
from .chat.engine import Engine
from .chat.generate import TextGenerator
from .chat.rendering import PromptRenderer
from .chat.tokenizer import Tokenizer
from .check import TextLimits
from .config import Settings
from .errors import ShuttingDown
from .file_watch import watch
from .health import HealthMonitor, HealthService, WatchedEngine
from .interceptors import CallInterceptor
from .metrics import Load, Metrics
from .security import OPEN, Security
from .service import ModelService, TextGenerationService

if TYPE_CHECKING:
    from .call_trace import Tracing

SERVICES = (
    text_generation_pb2.DESCRIPTOR.services_by_name["TextGenerationService"].full_name,
    model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
)

# Longer than a message takes from a caller to here.
_REFUSING_SECONDS = 0.25
# For calls that have been ended at the end of a drain to tell their callers.
_LAST_WORDS_SECONDS = 1.0
_NO_AGE = 2**31 - 1

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

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        engine: ServedEngine,
        *,
        security: Security = OPEN,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
        shares_port: bool = False,
    ) -> None:
        """Builds everything, listens to nothing yet. `shares_port`: with other workers. Raises TokenizerError."""
        self._settings = settings
        self._security = security
        self._health = HealthService(SERVICES)
        self._monitor = HealthMonitor(engine, self._health)
        self._tracing = tracing
        self._metrics = metrics or Metrics(model=bundle.model_id, version="")
        self._polling: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []
        self._calls = Calls()
        self._admission = Admission(
            AdmissionLimits(
                running=settings.max_running or bundle.parallel_requests,
                waiting=settings.max_waiting,
                per_caller=settings.max_calls_per_caller,
            )
        )
        options = _server_options(settings, shares_port=shares_port)
        self._grpc = grpc.aio.server(interceptors=[self._interceptor()], options=options)
        self._add_services(bundle, _text_generator(settings, bundle, engine))

    def _interceptor(self) -> CallInterceptor:
        settings = self._settings
        return CallInterceptor(
            self._calls,
            authenticate=self._security.authenticator.authenticate,
            limits=CallLimits(call_seconds=settings.max_call_seconds, stall_seconds=settings.stall_seconds),
            on_start=self._metrics.call_started,
            observers=(self._metrics.call_ended, log_call),
            tracing=self._tracing,
        )

    def _add_services(self, bundle: Bundle, generator: TextGenerator) -> None:
        settings = self._settings
        limits = TextLimits(
            field_characters=settings.max_field_characters, prompt_characters=settings.max_prompt_characters
        )
        text_generation_pb2_grpc.add_TextGenerationServiceServicer_to_server(
            TextGenerationService(bundle=bundle, generator=generator, limits=limits, admission=self._admission),
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
            port = self._listen(address)
        except RuntimeError as error:
            raise ListenError(
                f"can't listen on {address}: is another server running there? Choose with --address"
            ) from error
        await self._grpc.start()
        self._polling = asyncio.create_task(self._monitor.run())
        self._background = [
            asyncio.create_task(self._metrics.follow(lambda: self.load)),
            asyncio.create_task(watch(self._security.files)),
        ]
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def wait_until_serving(self) -> None:
        """Returns once the engine has been seen ready."""
        await self._health.wait_until_serving()

    async def drain(self, seconds: float) -> None:
        """NOT_SERVING; no new calls after `drain_delay_seconds`; running ones may finish until `seconds` are over.

        What runs then ends with ShuttingDown.
        """
        self._health.drain()
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling])
        end = asyncio.get_running_loop().time() + seconds
        await asyncio.sleep(min(self._settings.drain_delay_seconds, seconds))
        # gRPC's core ends calls that meet its shutdown as CANCELLED, which nobody tries again (grpc/grpc#41785). So
        # callers are told UNAVAILABLE first, and to come back later: then hardly anybody calls at that moment.
        self._calls.refuse_new(ShuttingDown())
        await asyncio.sleep(min(_REFUSING_SECONDS, seconds / 2))
        # When its grace is over gRPC cancels what is left without a word to callers; so it gets more than the calls.
        left = max(0.0, end - asyncio.get_running_loop().time())
        stopping = asyncio.ensure_future(self._grpc.stop(left + _LAST_WORDS_SECONDS))
        await asyncio.wait([stopping], timeout=left)
        self._calls.end_all(ShuttingDown())
        await stopping
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _listen(self, address: str) -> int:
        credentials = self._security.credentials
        if credentials is None:
            return self._grpc.add_insecure_port(address)
        return self._grpc.add_secure_port(address, credentials)

    @property
    def load(self) -> Load:
        """How busy the server is now."""
        return Load(
            calls_in_flight=len(self._calls),
            requests_running=self._admission.running,
            requests_waiting=self._admission.waiting,
            engine_ready=self._monitor.ready,
        )


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


def _server_options(settings: Settings, *, shares_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(shares_port)),  # else a port in use is an error, not shared in silence
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        # gRPC varies the age by a tenth, so connections made together do not end together. Running calls may finish.
        ("grpc.max_connection_age_ms", min(1_000 * settings.max_connection_age_seconds, _NO_AGE) or _NO_AGE),
        ("grpc.max_connection_age_grace_ms", min(round(settings.max_call_seconds * 1_000), _NO_AGE)),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_INTERVAL_MILLISECONDS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", _PING_CALLERS_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MILLISECONDS),
        ("grpc.http2.max_pings_without_data", 0),
    ]
