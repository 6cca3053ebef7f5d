"""Puts a Triton together from the wheel `nvidia-pytriton`, or says what this machine lacks for it.

Knows files and platforms only. The wheel has all the parts of a Triton, but not in the places where Triton looks.

    EmbeddedError
    ├── EmbeddedUnavailable   this machine or installation cannot run it; the text says what to do
    └── TritonStartError      (in `embedded`) it was started, and ended or never became ready
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")

_WHEEL = "nvidia-pytriton"
_INSTALL = "pip install 'llamarpc[embedded]'"
_SHARED_MEMORY_NEEDED_BYTES = 32 * 1024 * 1024
_OLDEST_GLIBC = (2, 35)


class EmbeddedError(Exception):
    """Base of what can go wrong here."""


class EmbeddedUnavailable(EmbeddedError):
    """This machine or installation cannot run the embedded Triton; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonInstallation:
    """A Triton that can be started: the program, its backends, and where its shared libraries are."""

    program: Path
    backend_directory: Path
    library_directories: tuple[Path, ...]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with Triton's libraries, no GPU, and this Python first: that is how the backend finds our packages."""
        libraries = [os.fspath(directory) for directory in self.library_directories]
        inherited = [base["LD_LIBRARY_PATH"]] if base.get("LD_LIBRARY_PATH") else []
        environment = {
            **base,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries + inherited),
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), base.get("PATH", os.defpath)]),
            "CUDA_VISIBLE_DEVICES": "",
        }
        environment.pop("PYTHONHOME", None)
        return environment


def assemble(cache_dir: Path) -> TritonInstallation:
    """Put a Triton together in `cache_dir`, or find the one made earlier.

    The folder is named after the wheel's version and Python's: others beside it are left alone. Several processes may
    call this at the same time.

    Raises:
        EmbeddedUnavailable: wrong platform, a missing package or library, too little shared memory.
    """
    _check_platform()
    _check_shared_memory()
    version, package = _find_wheel()
    library_directories = (package.parent / "nvidia_pytriton.libs", _libpython_directory())
    root = cache_dir / f"triton-{version}-python{_python_version()}"
    if not root.is_dir():
        _copy_triton(package / "tritonserver", root)
    return TritonInstallation(
        program=root / "bin" / "tritonserver",
        backend_directory=root / "backends",
        library_directories=library_directories,
    )


def _check_platform() -> None:
    found = f"{platform.system()} {platform.machine()}"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise EmbeddedUnavailable(
            f"the embedded Triton runs on Linux x86-64 only, this is {found}; run Triton elsewhere (for example in its "
            "container) and give its address to the server"
        )
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_GLIBC:
        raise EmbeddedUnavailable(
            f"the embedded Triton needs glibc 2.35 or newer (Ubuntu 22.04, Debian 12), this is "
            f"{libc or 'another libc'} {version}; run in a newer system or container, or run Triton elsewhere"
        )


def _check_shared_memory() -> None:
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError as error:
        raise EmbeddedUnavailable(f"Triton's Python backend needs {SHARED_MEMORY}: {error}") from error
    free = status.f_bavail * status.f_frsize
    if free < _SHARED_MEMORY_NEEDED_BYTES:
        raise EmbeddedUnavailable(
            f"{SHARED_MEMORY} has {free >> 20} MiB free, Triton's Python backend needs "
            f"{_SHARED_MEMORY_NEEDED_BYTES >> 20}; in Docker start the container with --shm-size=256m"
        )


def _find_wheel() -> tuple[str, Path]:
    try:
        version = metadata.version(_WHEEL)
    except metadata.PackageNotFoundError:
        raise EmbeddedUnavailable(f"the package {_WHEEL} is not installed: {_INSTALL}") from None
    spec = util.find_spec("pytriton")  # found, not imported: we use its files only
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedUnavailable(
            f"the package {_WHEEL} {version} has no files: pip install --force-reinstall {_WHEEL}"
        )
    package = Path(spec.submodule_search_locations[0])
    for needed in (f"python_backend_stubs/{_python_version()}/triton_python_backend_stub", "bin/tritonserver"):
        if not (package / "tritonserver" / needed).is_file():
            raise EmbeddedUnavailable(
                f"{_WHEEL} {version} has no {needed}; it serves Python 3.10 to 3.12, this is {_python_version()}"
            )
    return version, package


def _libpython_directory() -> Path:
    try:
        import find_libpython
    except ImportError:
        raise EmbeddedUnavailable(f"the package find-libpython is not installed: {_INSTALL}") from None
    name = f"libpython{_python_version()}.so.1.0"
    found = find_libpython.find_libpython()
    for directory in (Path(found).parent, Path(found).resolve().parent) if found else ():
        if (directory / name).exists():
            return directory
    raise EmbeddedUnavailable(
        f"no {name} was found for {sys.executable}, and Triton's Python backend needs it: "
        f"apt-get install libpython{_python_version()}, or use a Python that was built with --enable-shared"
    )


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _copy_triton(source: Path, root: Path) -> None:
    """Copy into a folder beside `root`, then rename: `root` is whole or absent. Site-packages stays untouched."""
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=".assembling-", ignore_cleanup_errors=True) as folder:
            new = Path(folder) / "triton"
            shutil.copytree(source / "backends", new / "backends", ignore=shutil.ignore_patterns("__pycache__"))
            stub = new / "backends" / "python" / "triton_python_backend_stub"
            shutil.copy(source / "python_backend_stubs" / _python_version() / stub.name, stub)
            (new / "bin").mkdir()
            program = new / "bin" / "tritonserver"
            shutil.copy(source / "bin" / "tritonserver", program)
            for executable in (stub, program):
                executable.chmod(0o755)
            new.rename(root)
    except OSError as error:
        if not root.is_dir():  # else another process was quicker, and its folder is as good
            raise EmbeddedUnavailable(
                f"cannot put Triton together in {root.parent}: {error}; choose a writable folder with 50 MB free"
            ) from error
