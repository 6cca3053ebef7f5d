"""A real gRPC server on a free port, for servicers of a few lines inside the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from llamarpc.v1.model_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server
from llamarpc.v1.text_generation_pb2_grpc import (
    TextGenerationServiceServicer,
    add_TextGenerationServiceServicer_to_server,
)

Serve = Callable[[TextGenerationServiceServicer | ModelServiceServicer], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves a servicer until the end of the test and gives the server's address."""
    with ExitStack() as servers:

        def start(servicer: TextGenerationServiceServicer | ModelServiceServicer) -> str:
            workers = servers.enter_context(ThreadPoolExecutor(max_workers=4))
            server = grpc.server(workers)
            if isinstance(servicer, ModelServiceServicer):
                add_ModelServiceServicer_to_server(servicer, server)
            else:
                add_TextGenerationServiceServicer_to_server(servicer, server)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            servers.callback(lambda: server.stop(grace=None).wait())
            return f"127.0.0.1:{port}"

        yield start
