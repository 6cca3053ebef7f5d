"""Serves metrics over HTTP: `/metrics` for Prometheus, `/healthz` for whoever asks whether the process lives.

Runs in threads of its own, so that a busy event loop is seen by its numbers and not by their absence. Has no
authentication and no TLS: listen where only the monitoring can reach it. Knows no metric by name.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler
from typing_extensions import Self

# A client that sends or reads nothing gives its thread back after this.
_CLIENT_TIMEOUT_SECONDS = 10.0
_STOP_POLL_SECONDS = 0.1

log = logging.getLogger(__name__)


class MetricsListenError(Exception):
    """The address can't be listened on; the text says what to do."""


class MetricsEndpoint:
    """The endpoint, open while an `async with` block runs."""

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        """`address` is HOST:PORT; port 0 picks a free one."""
        self._wanted = address
        self._handler = _Handler.factory(registry)
        self._server: _Server | None = None

    @property
    def address(self) -> str:
        """HOST:PORT with the port in use, inside the block."""
        assert self._server is not None, "the endpoint is not open"
        return f"{self._wanted.rpartition(':')[0]}:{self._server.server_port}"

    async def __aenter__(self) -> Self:
        """Listens. Raises MetricsListenError where the address can't be had."""
        self._server = await asyncio.to_thread(self._listen)
        serve = self._server.serve_forever
        # A daemon, so that a process that ends on another way than this block's end is not kept alive.
        threading.Thread(target=serve, args=(_STOP_POLL_SECONDS,), name="metrics", daemon=True).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the port. Answers under way are not waited for."""
        assert self._server is not None
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()
        self._server = None

    def _listen(self) -> _Server:
        host, _, port = self._wanted.rpartition(":")
        try:
            family, _, _, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
            return _Server(family, (str(where[0]), int(where[1])), self._handler)
        except (OSError, ValueError) as error:
            raise MetricsListenError(
                f"can't serve metrics on {self._wanted}: {error}; choose HOST:PORT with --metrics-address"
            ) from error


class _Handler(MetricsHandler):
    timeout = _CLIENT_TIMEOUT_SECONDS
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/metrics":
            super().do_GET()  # in the format and compression that the client accepts
        elif path == "/healthz":
            self._answer_alive()
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "there are /metrics and /healthz")

    def _refuse(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, "use GET")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _answer_alive(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def end_headers(self) -> None:
        # What a 405 must say; the others may.
        self.send_header("Allow", "GET")
        super().end_headers()

    def version_string(self) -> str:
        return "llamarpc"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int], handler: type[Any]) -> None:
        self.address_family = family
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # HTTPServer's own would ask the DNS for the host's name, which nothing here needs.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            log.debug("a client of the metrics left: %s", error)
        else:
            log.error("the metrics could not be served", exc_info=error)
