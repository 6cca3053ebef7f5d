"""A real gRPC server on a free port, for servicers of a few lines inside the tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Protocol

import grpc
import pytest
from llamarpc.v1.model_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server
from llamarpc.v1.text_generation_pb2_grpc import (
    TextGenerationServiceServicer,
    add_TextGenerationServiceServicer_to_server,
)


class Serve(Protocol):
    """Serves a servicer on loopback, in plaintext or with TLS, and gives its address; `host` is how to call it."""

    def __call__(
        self,
        servicer: TextGenerationServiceServicer | ModelServiceServicer,
        credentials: grpc.ServerCredentials | None = None,
        *,
        host: str = "127.0.0.1",
    ) -> str: ...


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Servers until the end of the test."""
    with ExitStack() as servers:

        def start(
            servicer: TextGenerationServiceServicer | ModelServiceServicer,
            credentials: grpc.ServerCredentials | None = None,
            *,
            host: str = "127.0.0.1",
        ) -> str:
            workers = servers.enter_context(ThreadPoolExecutor(max_workers=4))
            server = grpc.server(workers)
            if isinstance(servicer, ModelServiceServicer):
                add_ModelServiceServicer_to_server(servicer, server)
            else:
                add_TextGenerationServiceServicer_to_server(servicer, server)
            here = "127.0.0.1:0"
            port = server.add_secure_port(here, credentials) if credentials else server.add_insecure_port(here)
            server.start()
            servers.callback(lambda: server.stop(grace=None).wait())
            return f"{host}:{port}"

        yield start
