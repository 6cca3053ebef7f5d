"""One process at a time: a lock file that is there only while somebody holds or awaits it. Knows nothing of bundles."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .progress import step


@contextmanager
def exclusive(path: Path, *, waiting: str) -> Iterator[None]:
    """Holds the lock at `path`, which the system gives back even when the process is killed.

    Says `waiting` where it has to wait. Makes the folder. Raises OSError where no file can be made there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as file:
            _lock(file, waiting)
            if not _is_at(file, path):
                continue  # whoever held it before has removed it, and a newcomer may hold another one by now
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _lock(file: IO[str], waiting: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with step(waiting):
            fcntl.flock(file, fcntl.LOCK_EX)


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
