from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine_build.file_lock import exclusive


def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "new" / "lock", threading.Semaphore(1), []

    def enter(_: int) -> None:
        with exclusive(path, waiting="waiting"):
            most.append(inside.acquire(blocking=False))
            inside.release()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(200)))
    assert most == [True] * 200
    assert list(path.parent.iterdir()) == []


def test_waiting_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, held, released = tmp_path / "lock", threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive(path, waiting="not said"):
            held.set()
            released.wait(10)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert held.wait(10)
        threading.Timer(0.05, released.set).start()
        with exclusive(path, waiting="waiting for a friend"):
            assert holding.done() or released.is_set()
    assert "waiting for a friend ..." in capsys.readouterr().err


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(tmp_path / "lock", waiting="waiting"):
        raise KeyError
    with exclusive(tmp_path / "lock", waiting="waiting"):
        assert (tmp_path / "lock").exists()
