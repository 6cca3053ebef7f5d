"""`python -m tests.soak --minutes 10`: the soak as a command (`make soak`). Exit status 1 where something is wrong."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import Limits, soak

# At 20 calls a second 2 MB a minute is less than 2 kB for each call: a task, a prompt or a message that is kept for
# every call is more. Over three minutes an honest run gave -0.2 to +1.1. Triton's allocator takes longer to rest.
_LIMITS = Limits(server=2.0, engine=4.0, restarts=20)
# In a minute or two, pools and caches are still filling.
_LOOSE_LIMITS = Limits(server=12.0, engine=40.0, restarts=10)
_ENOUGH_MINUTES = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to keep up the load (default: 10)")
    minutes = parser.parse_args().minutes
    limits = _LIMITS if minutes >= _ENOUGH_MINUTES else _LOOSE_LIMITS
    with tempfile.TemporaryDirectory(prefix="llamarpc-soak-") as folder:
        try:
            asyncio.run(soak(Path(folder), seconds=60 * minutes, limits=limits))
        except AssertionError as failure:
            print(f"soak: failed: {failure}", file=sys.stderr)
            return 1
    print(f"soak: {minutes:g} minutes, nothing kept, nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
