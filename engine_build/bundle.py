"""bundle.json: who the model is and which files belong to it. Written once, last of all files, and read by everybody.

Knows no engine. Paths in `files` are relative to the bundle, with forward slashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import BundleError

SCHEMA_VERSION = 1
FILE_NAME = "bundle.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What runs the model. `source_sha256` is the digest of the weights file that the engine was made from."""

    kind: str
    version: str
    source: str
    source_sha256: str
    parallel_requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The contents of bundle.json, apart from the schema version."""

    model_id: str
    display_name: str
    prompt_format: str
    default_system_prompt: str
    """What the model's own template says where a conversation has no system message; empty for none."""
    end_ids: tuple[int, ...]
    """The first is the engine's end id; further ones travel as stop words."""
    pad_id: int
    vocabulary_size: int
    context_length: int
    """Tokens of prompt and reply together."""
    generation_defaults: Mapping[str, float]
    """Only what the model's author publishes."""
    adapters: Mapping[str, int]
    """LoRA adapters: name to task id."""
    guided_decoding: tuple[str, ...]
    engine: Engine
    license: str
    files: Mapping[str, str]
    """Path to sha256, of every file of the bundle but bundle.json itself."""
    inputs_sha256: str
    """Digest of all that the bundle was made from: where it is the same, there is nothing to build. Empty: unknown."""

    def to_json(self) -> str:
        """The text of bundle.json."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    def differences(self, other: Bundle) -> list[str]:
        """Names of the fields in which two bundles differ, files by their path. `inputs_sha256` doesn't count."""
        names = [field.name for field in fields(self) if field.name not in ("engine", "files", "inputs_sha256")]
        found = [name for name in names if getattr(self, name) != getattr(other, name)]
        engine_names = [field.name for field in fields(self.engine)]
        found += [f"engine.{n}" for n in engine_names if getattr(self.engine, n) != getattr(other.engine, n)]
        paths = sorted({*self.files, *other.files})
        return found + [path for path in paths if self.files.get(path) != other.files.get(path)]


def read_bundle(folder: Path) -> Bundle:
    """Reads FOLDER/bundle.json. Raises BundleError where it is missing, damaged, or of another schema version."""
    path = folder / FILE_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {FILE_NAME}") from None
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path} is damaged: {error}; build the bundle again") from error
    try:
        return _bundle_from_document(document)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def sha256_of(path: Path) -> str:
    """Digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


# Key to type, and the type of its elements where it holds any.
_KEYS: dict[str, tuple[type, type | None]] = {
    "model_id": (str, None),
    "display_name": (str, None),
    "prompt_format": (str, None),
    "default_system_prompt": (str, None),
    "end_ids": (list, int),
    "pad_id": (int, None),
    "vocabulary_size": (int, None),
    "context_length": (int, None),
    "generation_defaults": (dict, float),
    "adapters": (dict, int),
    "guided_decoding": (list, str),
    "license": (str, None),
    "files": (dict, str),
    "inputs_sha256": (str, None),
}
_ENGINE_KEYS: dict[str, tuple[type, type | None]] = {
    "kind": (str, None),
    "version": (str, None),
    "source": (str, None),
    "source_sha256": (str, None),
    "parallel_requests": (int, None),
}


def _bundle_from_document(document: Any) -> Bundle:
    if not isinstance(document, dict):
        raise BundleError("must be a JSON object")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise BundleError(f"schema_version is {version!r}, this program knows {SCHEMA_VERSION}; build the bundle again")
    engine = document.get("engine")
    if not isinstance(engine, dict):
        raise BundleError("'engine' must be an object")
    values = _checked({"inputs_sha256": "", **document}, _KEYS, prefix="")
    if not values["end_ids"]:
        raise BundleError("'end_ids' must not be empty")
    return Bundle(**values, engine=Engine(**_checked(engine, _ENGINE_KEYS, prefix="engine.")))


def _checked(
    document: Mapping[str, Any], keys: Mapping[str, tuple[type, type | None]], *, prefix: str
) -> dict[str, Any]:
    """The values of `keys`, lists as tuples. Keys that are not asked for are left out: later versions may add some."""
    values: dict[str, Any] = {}
    for key, (kind, element) in keys.items():
        value = document.get(key)
        elements = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if not _is_a(value, kind) or not all(element is None or _is_a(each, element) for each in elements):
            of = f" of {element.__name__}" if element else ""
            raise BundleError(f"'{prefix}{key}' must be {kind.__name__}{of}")
        values[key] = tuple(value) if isinstance(value, list) else value
    return values


def _is_a(value: object, kind: type) -> bool:
    """Like isinstance, but an int passes for a float and a bool for nothing else."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
