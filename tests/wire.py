"""Raw bytes for a port that speaks HTTP/2: recorded calls, made-up frames, connections that end as they should not.

Knows no protobuf messages and nothing of the server behind the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time at all
_CHUNK_BYTES = 65_536

# RFC 9113, section 6, and two numbers that it does not give out.
_FRAME_KINDS = (*range(10), 0x20, 0xFF)
_FLAGS = (0x0, 0x1, 0x4, 0x5, 0x8, 0x20, 0xFF)
_STREAMS = (0, 1, 1, 2, 3, 5, 2**31 - 1)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def frame(kind: int, flags: int, stream: int, payload: bytes, *, length: int | None = None) -> bytes:
    """One HTTP/2 frame; `length` is what it says of its payload where that is a lie."""
    said = len(payload) if length is None else length
    return said.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def random_frames(source: random.Random, *, headers: bytes) -> bytes:
    """A preface, valid SETTINGS, and frames of all kinds in no good order. `headers`: a block of a real request."""
    parts = [PREFACE, frame(0x4, 0, 0, b"")]
    for _ in range(source.randint(1, 20)):
        kind = source.choice(_FRAME_KINDS)
        payload = headers if kind == 0x1 and source.random() < 0.7 else source.randbytes(source.choice((0, 4, 8, 40)))
        lie = source.randrange(2**24) if source.random() < 0.1 else None
        parts.append(frame(kind, source.choice(_FLAGS), source.choice(_STREAMS), payload, length=lie))
    return b"".join(parts)


def headers_block(recorded: bytes) -> bytes:
    """The payload of the first HEADERS frame of what a client sent."""
    at = len(PREFACE)
    while recorded[at + 3] != 0x1:
        at += 9 + int.from_bytes(recorded[at : at + 3], "big")
    return recorded[at + 9 : at + 9 + int.from_bytes(recorded[at : at + 3], "big")]


@asynccontextmanager
async def recording(address: str) -> AsyncIterator[tuple[str, bytearray]]:
    """The address of a proxy for one connection, and what a client has sent through it so far."""
    sent = bytearray()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*split_address(address))
        await asyncio.gather(_copy(reader, up_writer, sent), _copy(up_reader, writer, bytearray()))

    proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
    async with proxy:
        yield f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}", sent


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            kept += data
            writer.write(data)
    writer.close()


async def answer_to(address: str, data: bytes, *, quiet_seconds: float) -> bytes:
    """Sends bytes; what comes back until nothing has come for so long, or the server closes. Then closes as well."""
    reader, writer = await asyncio.open_connection(*split_address(address))
    answer = b""
    with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
        writer.write(data)
        while more := await asyncio.wait_for(reader.read(_CHUNK_BYTES), quiet_seconds):
            answer += more
    await _closed(writer)
    return answer


async def abandon(address: str, data: bytes, *, wait_for: bytes | None = None, patience_seconds: float) -> None:
    """Connects, sends bytes and resets the connection, as where a caller's machine dies.

    `wait_for`: only once this has come back. Raises TimeoutError where it does not come.
    """
    reader, writer = await asyncio.open_connection(*split_address(address))
    try:
        writer.write(data)
        if wait_for is not None:
            await asyncio.wait_for(reader.readuntil(wait_for), patience_seconds)
    finally:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
        await _closed(writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
