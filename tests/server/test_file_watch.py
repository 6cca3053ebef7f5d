"""Files are looked at again and again, off the event loop, whatever goes wrong with one of them."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from pathlib import Path

import pytest

from server.file_watch import stamp_of, watch
from tests.fakes import PATIENCE_SECONDS
from tests.waiting import until


class Counted:
    def __init__(self, error: Exception | None = None) -> None:
        self.looks = 0
        self.threads: set[str] = set()
        self._error = error

    def reload_if_changed(self) -> None:
        self.looks += 1
        self.threads.add(threading.current_thread().name)
        if self._error is not None:
            raise self._error


async def test_every_file_is_watched_also_beside_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    broken, whole = Counted(ZeroDivisionError("a defect")), Counted()
    task = asyncio.create_task(watch([broken, whole], every_seconds=0.001))
    await until(lambda: whole.looks >= 3, seconds=PATIENCE_SECONDS, what="three looks")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert broken.looks >= 3
    assert threading.main_thread().name not in whole.threads
    assert {(record.levelno, record.getMessage()) for record in caplog.records} == {
        (logging.ERROR, "unexpected failure while files were read anew")
    }


def test_stamps(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    assert stamp_of(path) is None
    path.write_text("one")
    first = stamp_of(path)
    assert first is not None
    assert stamp_of(path) == first
    path.write_text("longer")
    second = stamp_of(path)
    assert second != first
    # The same length and the same times, as some tools leave them: still another file.
    other.write_text("others")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)
    assert stamp_of(path) != second
