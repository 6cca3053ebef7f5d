"""The ports of a Triton on this machine: which are free, which are taken, and whether Triton is ready behind them.

Knows sockets and one HTTP path; knows no processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"

_ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Triton's three ports, all on the loopback interface."""

    grpc: int
    http: int
    metrics: int


def free_ports() -> Ports:
    """Three ports that nobody listens on at this moment. Another process may take them before they are used."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        grpc, http, metrics = (each.getsockname()[1] for each in sockets)
    return Ports(grpc=grpc, http=http, metrics=metrics)


def any_in_use(ports: Ports) -> bool:
    """Whether one of them can't be listened on."""
    for port in (ports.grpc, ports.http, ports.metrics):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # remains of old connections don't count
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return True
    return False


async def is_ready(http_port: int) -> bool:
    """Whether Triton answers there that all its models are ready."""
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, http_port)
    except OSError:
        return False
    try:
        writer.write(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status_line = await asyncio.wait_for(reader.readline(), _ANSWER_SECONDS)
    except (OSError, asyncio.TimeoutError):
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return status_line.split()[1:2] == [b"200"]
