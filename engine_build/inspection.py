"""Shows what a bundle is and whether its files are as it says. Knows of engines only how they name adapters' files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bundle import Bundle, read_bundle
from .bundle_writer import damaged_files
from .llama_cpp.adapters import adapter_file_name
from .progress import readable_size


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """One file. `state` is `ok`, `changed` or `missing`; `size_bytes` is 0 where it is missing."""

    path: str
    size_bytes: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A bundle as found in a folder."""

    folder: Path
    bundle: Bundle
    token_texts: dict[int, str]
    files: tuple[FileReport, ...]

    @property
    def intact(self) -> bool:
        """Whether all files are as the bundle says."""
        return all(file.state == "ok" for file in self.files)

    def to_json(self) -> str:
        """For programs."""
        description: dict[str, Any] = json.loads(self.bundle.to_json())
        description["files"] = [
            {
                "path": file.path,
                "size_bytes": file.size_bytes,
                "sha256": self.bundle.files[file.path],
                "state": file.state,
            }
            for file in self.files
        ]
        description["end_tokens"] = [self.token_texts.get(id_) for id_ in self.bundle.end_ids]
        description["intact"] = self.intact
        return json.dumps(description, indent=2, ensure_ascii=False)

    def to_text(self) -> str:
        """For people."""
        width = max(len(name) for name in self._facts()) + 2
        lines = [
            f"Bundle {self.folder}",
            *(f"  {name:<{width}}{value}" for name, value in self._facts().items()),
            "Files",
        ]
        longest = max((len(file.path) for file in self.files), default=0)
        lines += [f"  {f.path:<{longest}}  {readable_size(f.size_bytes):>10}  {f.state}" for f in self.files]
        if not self.intact:
            lines.append("Some files are not as they were built: build the bundle again with --force.")
        return "\n".join(lines)

    def _facts(self) -> dict[str, str]:
        bundle = self.bundle
        defaults = ", ".join(f"{name} {value}" for name, value in bundle.generation_defaults.items())
        return {
            "model": f"{bundle.model_id} ({bundle.display_name})",
            "licence": bundle.license or "not stated",
            "prompt format": bundle.prompt_format,
            "system prompt": f'"{bundle.default_system_prompt}" by default'
            if bundle.default_system_prompt
            else "none by default",
            "ends a reply": ", ".join(self._token(id_) for id_ in bundle.end_ids),
            "padding": self._token(bundle.pad_id),
            "context": f"{bundle.context_length} tokens of prompt and reply together",
            "vocabulary": f"{bundle.vocabulary_size} tokens",
            "defaults": defaults or "none published by the model's author",
            "LoRA adapters": ", ".join(map(self._adapter, bundle.adapters)) or "none",
            "guided decoding": ", ".join(bundle.guided_decoding) or "none",
            "engine": f"{bundle.engine.kind} ({bundle.engine.version})",
            "parallel": f"{bundle.engine.parallel_requests} requests at the same time",
            "made from": f"{bundle.engine.source}, sha256 {bundle.engine.source_sha256}",
        }

    def _adapter(self, name: str) -> str:
        """With the size of its file, which is about what it takes in memory."""
        file_name = adapter_file_name(self.bundle.adapters[name])
        sizes = [file.size_bytes for file in self.files if file.path.endswith(f"/{file_name}")]
        return f"{name} ({readable_size(sum(sizes))})" if sizes else name

    def _token(self, id_: int) -> str:
        return f"{self.token_texts.get(id_, '(unknown token)')} ({id_})"


def inspect(folder: Path) -> Inspection:
    """Reads a bundle and checks its files. Raises BundleError where the folder holds none."""
    bundle = read_bundle(folder)
    damaged = damaged_files(bundle, folder)
    files = [
        FileReport(path=path, size_bytes=_size(folder / path), state=damaged.get(path, "ok"))
        for path in sorted(bundle.files)
    ]
    return Inspection(folder=folder, bundle=bundle, token_texts=_token_texts(folder, bundle), files=tuple(files))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _token_texts(folder: Path, bundle: Bundle) -> dict[int, str]:
    """Texts of the tokens that the bundle names, as far as its tokenizer file tells: it may be the damaged one."""
    try:
        document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        added = {int(token["id"]): str(token["content"]) for token in document["added_tokens"]}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return {id_: added[id_] for id_ in (*bundle.end_ids, bundle.pad_id) if id_ in added}
