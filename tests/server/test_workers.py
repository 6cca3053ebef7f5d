"""What becomes of a worker that can't be started; the rest is in tests/end_to_end/test_workers.py."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from server.config import Settings
from server.workers import Team


async def test_a_worker_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No memory or no process to be had may pass; the others go on meanwhile."""
    tried_again = asyncio.Event()

    async def no_process(*command: str, **options: object) -> asyncio.subprocess.Process:
        if "no processes left" in caplog.text:
            tried_again.set()
        raise BlockingIOError("no processes left")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)
    team = Team(1, Settings(bundle=tmp_path), tmp_path)
    with caplog.at_level(logging.ERROR):
        team.start()
        await asyncio.wait_for(tried_again.wait(), 20)
        await team.drain(0)
    assert "worker 0 ended (no processes left); starting another" in caplog.text
