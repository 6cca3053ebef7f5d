"""Tells people on stderr what is being done and how long it took. Knows nothing of bundles."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_KIB = 1024


def say(message: str) -> None:
    """Writes one line."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def step(message: str) -> Iterator[None]:
    """Writes `message ...` now, and the time it took on the same line once the block is done."""
    print(f"{message} ...", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        say("")
        raise
    say(f" {time.monotonic() - started:.1f} s")


def readable_size(size_bytes: int) -> str:
    """Size in the largest binary unit that keeps it at 1 or more, such as `93.8 MiB`."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIB:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _KIB
    return f"{size:.1f} TiB"
