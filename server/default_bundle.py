"""The bundle that `--embedded` serves when none is named: made once by engine_build, kept in the user's cache folder.

Runs engine_build as its own process: the server and engine_build share files, not code. Knows nothing of what is in
the bundle.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from .bundle import BundleError


async def build_default_bundle(cache: Path) -> Path:
    """The default model's bundle, made first where it is missing; shows engine_build's progress. Raises BundleError."""
    path = cache / "bundles" / "default"
    # --force: a bundle that an older release made is replaced; one that is up to date is left alone.
    command = [sys.executable, "-m", "engine_build", "llama-cpp", "--out", str(path), "--force"]
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "LLAMARPC_CACHE_DIR": str(cache)})
    try:
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if status != 0:
        raise BundleError("the default bundle could not be built (see above); or name one with --bundle DIR")
    return path
