"""Opens llama.cpp, the shared library inside the `xllamacpp` wheel, through ctypes.

Knows no Triton and no scheduling. ctypes cannot see the C header, so the declared structs are only right for the one
version that they were copied from: `open_library` refuses any other and compares the library's default parameters with
known values before a struct of ours is passed to it.
"""

import ctypes
import logging
import os
from collections.abc import Callable
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from .c_declarations import CONTEXT_DEFAULTS, FUNCTIONS, MODEL_DEFAULTS, SUPPORTED_VERSION, WHEEL

# How long llama.cpp's compute threads (GNU OpenMP) spin at a barrier before they sleep. OpenMP's own default is
# 300 times that: about as fast on idle cores, far slower in trials where something else wanted a core too.
_SPIN_COUNT = "1000"

_logger = logging.getLogger(__name__)


class LibraryError(RuntimeError):
    """The llama.cpp library is missing, or is not the build that this binding was written for."""


_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_GGML_LOG_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
_GGML_LOG_CONTINUES = 5


class Library:
    """The C functions of `FUNCTIONS` as attributes, typed; every call releases the GIL while C runs."""

    def __init__(self, path: Path) -> None:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)  # read once, when OpenMP is loaded along with llama.cpp
        try:
            self._library = ctypes.CDLL(os.fspath(path))
        except OSError as error:
            hint = "; apt-get install libgomp1" if "libgomp" in str(error) else ""
            raise LibraryError(f"cannot load llama.cpp from {path}: {error}{hint}") from error
        for name, (result, arguments) in FUNCTIONS.items():
            setattr(self, name, self._bound(name, result, arguments))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"{name} is not among the llama.cpp functions bound in {__name__}")

    def start(self) -> None:
        """Check the structs against the library, then initialise llama.cpp."""
        _check_defaults("llama_model_default_params", self.llama_model_default_params(), MODEL_DEFAULTS)
        _check_defaults("llama_context_default_params", self.llama_context_default_params(), CONTEXT_DEFAULTS)
        self.llama_log_set(ctypes.cast(_log_callback(), ctypes.c_void_p), None)
        self.llama_backend_init()

    def _bound(self, name: str, result: Any, arguments: tuple[Any, ...]) -> Any:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise LibraryError(f"the llama.cpp library has no function {name}; {_advice()}") from None
        function.restype = result
        function.argtypes = arguments
        return function


def open_library() -> Library:
    """Find, load, check and initialise the wheel's library.

    Raises:
        LibraryError: the wheel is missing, of another version, or its structs are not the ones declared here.
    """
    try:
        installed = metadata.version(WHEEL)
    except metadata.PackageNotFoundError:
        raise LibraryError(f"the package {WHEEL} is not installed; {_advice()}") from None
    if installed != SUPPORTED_VERSION:
        raise LibraryError(f"{WHEEL} {installed} is installed, but the engine needs {SUPPORTED_VERSION}; {_advice()}")
    library = Library(_library_path())
    library.start()
    return library


def _library_path() -> Path:
    spec = util.find_spec(WHEEL)  # finds without importing: the package's own start-up is of no use here
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "xllamacpp.abi3.so"
        if path.is_file():
            return path
    raise LibraryError(f"the package {WHEEL} {SUPPORTED_VERSION} holds no xllamacpp.abi3.so; {_advice()}")


def _check_defaults(function: str, params: ctypes.Structure, expected: dict[str, object]) -> None:
    found = {name: getattr(params, name) for name in expected}
    wrong = [f"{name} is {found[name]!r}, not {value!r}" for name, value in expected.items() if found[name] != value]
    if wrong:
        details = "; ".join(wrong)
        raise LibraryError(f"{function} differs from that of {WHEEL} {SUPPORTED_VERSION} ({details}); {_advice()}")


def _advice() -> str:
    return f"install the version it was written for: pip install '{WHEEL}=={SUPPORTED_VERSION}'"


@cache
def _log_callback() -> Any:
    """One for the life of the process: llama.cpp goes on calling it, also when no Library is left."""
    return _LOG_CALLBACK(_make_log_sink(bool(os.environ.get("LLAMARPC_ENGINE_LOG"))))


def _make_log_sink(everything: bool) -> Callable[[int, bytes, object], None]:
    """llama.cpp logs hundreds of lines per load: only errors are passed on, unless everything is wanted."""
    last_level = logging.DEBUG

    def sink(level: int, text: bytes, _data: object) -> None:
        nonlocal last_level
        if level != _GGML_LOG_CONTINUES:
            last_level = _GGML_LOG_LEVELS.get(level, logging.DEBUG)
        if everything or last_level >= logging.ERROR:
            line = text.decode("utf-8", "replace").rstrip()
            if line:
                # At least a warning: Python prints nothing below that unless it is configured.
                _logger.log(max(last_level, logging.WARNING), "llama.cpp: %s", line)

    return sink
