"""Who may import whom (the table of the design, section 5): arrows go one way. Reads the source, imports nothing."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"server": ROOT, "engine_build": ROOT, "llamarpc": ROOT / "clients" / "python"}

# A part (a package or a module) may import the standard library, itself and these.
MAY_IMPORT: dict[str, set[str]] = {
    "server.chat": {"tokenizers", "typing_extensions", "server.errors"},
    # Grammars and source code know nothing of the pipeline around them.
    "server.chat.grammar": {"typing_extensions", "server.errors"},
    "server.chat.function_code": {"typing_extensions"},
    "server.triton": {"server.chat.engine", "server.chat.model", "server.errors", "grpc", "tritonclient"},
    "server.errors": set(),
    "server.config": set(),
    "server.bundle": {"server.chat.prompt_formats"},
    "server.check": {"google.protobuf", "llamarpc.v1", "server.check_tools", "server.errors"},
    "server.check_tools": {
        *("llamarpc.v1", "server.chat.guides", "server.chat.model", "server.chat.tool_text"),
        *("server.errors", "server.reply_shape"),
    },
    "server.reply_shape": {"llamarpc.v1", "server.chat.function_code", "server.chat.model"},
    "server.capabilities": {"llamarpc.v1", "server.bundle", "server.errors"},
    "server.convert": {
        *("google.protobuf", "llamarpc.v1", "typing_extensions"),
        *("server.bundle", "server.capabilities", "server.chat.model", "server.check", "server.errors"),
        *("server.chat.guides", "server.reply_shape"),
    },
    "server.service": {
        *("grpc", "llamarpc.v1", "server.bundle", "server.chat.generate", "server.chat.model"),
        *("server.admission", "server.calls", "server.capabilities", "server.check", "server.convert"),
        *("server.errors", "server.priority", "server.token_entries"),
    },
    "server.admission": {"server.errors", "server.priority", "server.waiting_line"},
    "server.waiting_line": {"server.errors", "server.priority"},
    "server.priority": {"server.errors"},
    "server.call_record": set(),
    "server.calls": {
        "server.call_trace",
        "server.call_record",
        "server.chat.meter",
        "server.errors",
        "server.token_entries",
    },
    "server.call_limits": {"server.calls", "server.errors"},
    "server.call_log": {"server.call_record"},
    "server.metric_specs": set(),
    "server.metrics": {"prometheus_client", "server.call_record", "server.metric_specs"},
    "server.metrics_endpoint": {"prometheus_client", "typing_extensions"},
    "server.token_entries": set(),
    "server.file_watch": set(),
    "server.tokens": {
        *("typing_extensions", "server.errors", "server.file_watch"),
        *("server.token_command", "server.token_entries"),
    },
    "server.token_command": {"server.token_entries"},
    "server.authentication": {"server.errors", "server.token_entries", "server.tokens"},
    "server.tls": {"cryptography", "grpc", "typing_extensions", "server.file_watch"},
    "server.exposure": {"server.config"},
    "server.security": {
        *("grpc", "server.authentication", "server.config", "server.exposure", "server.file_watch"),
        *("server.tls", "server.tokens"),
    },
    "server.shared_port": set(),
    "server.tracing": {"opentelemetry", "server.call_trace"},
    "server.call_trace": {"opentelemetry", "server.call_record"},
    "server.status": {"google.protobuf", "google.rpc", "grpc", "server.errors"},
    "server.interceptors": {
        "server.call_trace",
        *(
            "google.protobuf",
            "grpc",
            "grpc_status",
            "server.call_limits",
            "server.calls",
            "server.check",
            "server.errors",
        ),
        *("server.status", "server.token_entries"),
    },
    "server.health": {"grpc", "grpc_health", "server.errors"},
    # Copied into the model repository, so it must stand alone.
    "engine_build.llama_cpp.runtime": {"llguidance", "numpy", "triton_python_backend_utils"},
}
# A part may import anything but these. The bundle and the protos are the joints between the three.
MAY_NOT_IMPORT: dict[str, set[str]] = {
    "server": {"engine_build", "gateway", "tests"},
    "engine_build": {"server", "gateway", "llamarpc", "tests"},
    "llamarpc": {"server", "engine_build", "gateway", "tests"},
}
# Modules that only these may import.
ONLY_IMPORTED_BY = {
    "server.serve": {"server.__main__", "server.workers"},
    # Needs an extra; all but the first import it for its types only.
    "server.call_trace": {"server.tracing", "server.calls", "server.grpc_server", "server.interceptors"},
}


def within(name: str, parts: set[str]) -> bool:
    return any(name == part or name.startswith(part + ".") for part in parts)


def modules(sources: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    for package, folder in sources.items():
        for path in sorted((folder / package).rglob("*.py")):
            yield ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"), path


def imports(module: str, path: Path) -> Iterator[str]:
    """Absolute names of all imports, also inside functions: `from ..chat import engine` is server.chat.engine."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)


def violations(sources: dict[str, Path]) -> list[str]:
    found = []
    for module, path in modules(sources):
        for name in imports(module, path):
            wrong = any(
                within(module, {part}) and not within(name, {part, *allowed, *sys.stdlib_module_names})
                for part, allowed in MAY_IMPORT.items()
            )
            wrong |= any(within(module, {part}) and within(name, banned) for part, banned in MAY_NOT_IMPORT.items())
            wrong |= any(
                within(name, {part}) and not within(module, {part, *importers})
                for part, importers in ONLY_IMPORTED_BY.items()
            )
            if wrong:
                found.append(f"{module} imports {name}")
    return found


def test_arrows_go_one_way() -> None:
    assert violations(SOURCES) == []


def test_every_part_of_the_table_exists() -> None:
    names = {module for module, _ in modules(SOURCES)}
    assert {part for part in (*MAY_IMPORT, *MAY_NOT_IMPORT, *ONLY_IMPORTED_BY) if part not in names} == set()


@pytest.mark.parametrize(
    ("file", "source", "name"),
    [
        ("server/chat/generate.py", "import grpc.aio", "grpc.aio"),
        ("server/chat/generate.py", "from ..config import Settings", "server.config.Settings"),
        ("server/chat/__init__.py", "from .. import config", "server.config"),
        ("server/chat/generate.py", "from .. import convert", "server.convert"),
        ("server/chat/stops.py", "def f():\n    from llamarpc.v1 import chat_pb2", "llamarpc.v1.chat_pb2"),
        ("server/triton/engine.py", "from ..chat.generate import TextGenerator", "server.chat.generate.TextGenerator"),
        ("server/triton/engine.py", "from llamarpc.v1 import chat_pb2", "llamarpc.v1.chat_pb2"),
        ("server/check.py", "import grpc", "grpc"),
        ("server/convert.py", "from .triton import engine", "server.triton.engine"),
        ("server/service.py", "from .config import Settings", "server.config.Settings"),
        ("server/new.py", "from .serve import serve", "server.serve.serve"),
        ("server/new.py", "from engine_build.bundle import Bundle", "engine_build.bundle.Bundle"),
        ("engine_build/new.py", "import server", "server"),
        ("engine_build/deep/er/new.py", "from server.bundle import Bundle", "server.bundle.Bundle"),
        ("engine_build/llama_cpp/runtime/model.py", "from ...errors import SpecError", "engine_build.errors.SpecError"),
        ("llamarpc/client.py", "from server import errors", "server.errors"),
    ],
)
def test_planted_violations_are_found(tmp_path: Path, file: str, source: str, name: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    assert violations(dict.fromkeys(SOURCES, tmp_path)) == [f"{module} imports {name}"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("server/chat/generate.py", "import asyncio\nfrom ..errors import PromptTooLong\nfrom . import stops"),
        ("server/__main__.py", "from .serve import serve"),
        ("server/triton/tensors.py", "from ..chat.engine import EngineRequest\nimport tritonclient.grpc"),
        ("engine_build/build.py", "import server_tools, numpy"),
    ],
)
def test_legal_imports_are_left_alone(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert violations(dict.fromkeys(SOURCES, tmp_path)) == []
