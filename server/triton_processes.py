"""The processes of a Triton: itself, tied to our life, and one child for each model instance of the Python backend.

Triton does not notice when a model's process dies while serving (the OOM killer takes the largest): streams that run
hang for ever, new ones fail, and it goes on calling the model ready. So somebody else must look.

Knows Linux's processes and /proc; starts nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

_PROC = Path("/proc")
_DEAD = ("Z", "X")

# Runs between fork and exec, in a process of its own: ties a life to ours, then becomes the command. The parent may
# have died before the tie was made, which the second line notices.
_TIE_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # 1 = PR_SET_PDEATHSIG; it outlives exec
if os.getppid() != int(sys.argv[1]): sys.exit("the parent has gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def tied_to_us(command: list[str]) -> list[str]:
    """A command that becomes `command` (a full path first) and ends when the thread that starts it ends."""
    return [sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid()), *command]


def children(parent: int) -> frozenset[int]:
    """Process ids of the children of a process, with dead ones that it has not taken notice of."""
    numbers = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return frozenset(number for number in numbers if _state_and_parent(number)[1] == parent)


def lost(parent: int, known: frozenset[int]) -> frozenset[int]:
    """Those of the children of `parent` that live no more. A number that another process bears now counts as lost."""
    found = {number: _state_and_parent(number) for number in known}
    return frozenset(number for number, (state, its) in found.items() if state in _DEAD or its != parent)


def exit_reason(code: int) -> str:
    """What a return code of asyncio's or subprocess's means, in words."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _state_and_parent(number: int) -> tuple[str, int]:
    try:
        text = (_PROC / str(number) / "stat").read_text("utf-8", "replace")
    except OSError:
        return "X", 0
    state, parent = text.rpartition(")")[2].split()[:2]  # the name before it may hold anything, brackets too
    return state, int(parent)
