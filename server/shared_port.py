"""A port that several processes of ours listen on together, kept for them while none of them does.

Knows sockets; knows no gRPC and no processes.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def shared_port(address: str) -> Iterator[str]:
    """Keeps HOST:PORT for sockets with SO_REUSEPORT while the block runs; gives it with the port in use for port 0.

    Linux spreads new connections over all sockets that listen on it; the one here never does. Raises OSError where
    somebody listens there already, or the address is not one of this machine.
    """
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, where = socket.getaddrinfo(  # the first one is what gRPC would take too
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:  # a second server would else share the port in silence
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(where)
        port_in_use = int(probe.getsockname()[1])
    with socket.socket(family, kind, protocol) as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.bind((where[0], port_in_use, *where[2:]))
        yield f"{host}:{port_in_use}"
