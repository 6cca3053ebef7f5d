"""Files that may change while the server runs: whether they did, and a task that asks once a second.

Knows not what is in the files.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Protocol, TypeAlias

WATCH_SECONDS = 1.0

FileStamp: TypeAlias = tuple[int, ...] | None
"""What changes whenever a file is written or replaced; None where there is none, or none that can be looked at."""

log = logging.getLogger(__name__)


class Reloadable(Protocol):
    """Something made of files, which keeps what it has where the new files are no good."""

    def reload_if_changed(self) -> None:
        """Reads the files anew where they changed. Runs in a thread of its own, never twice at a time."""
        ...


def stamp_of(path: Path) -> FileStamp:
    """The file's stamp now. Follows links: in Kubernetes, files of a secret are links that are pointed elsewhere."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


async def watch(files: Sequence[Reloadable], *, every_seconds: float = WATCH_SECONDS) -> NoReturn:
    """Has each of them look at its files once a second, until cancelled. A defect in one is logged, not the end."""
    while True:
        await asyncio.sleep(every_seconds)
        for each in files:
            try:
                # Not on the event loop: reading an RSA key takes milliseconds, a file on a network disk any time.
                await asyncio.to_thread(each.reload_if_changed)
            except Exception:
                log.exception("unexpected failure while files were read anew")
