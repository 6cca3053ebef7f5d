"""Makes a bundle for the CPU engine out of a GGUF file.

Everything a bundle says about itself is worked out before anything is written. Knows no serving: the code that Triton
runs is copied as it is.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import triton_config
from ..bundle import Bundle, Engine, sha256_of
from ..bundle_writer import Plan, is_made_from, place
from ..contract import MODEL_NAME
from ..errors import ChatTemplateError, DownloadError, EngineBuildError, GgufError, SpecError, TokenizerError
from ..progress import readable_size, say, step
from ..prompt_formats import (
    PROMPT_FORMATS,
    ChatTemplate,
    Detected,
    PromptFormat,
    default_system_prompt_of,
    detect,
    end_ids,
)
from ..spec import LlamaCppSpec
from .adapters import Adapter, check_adapter, find_adapters
from .download import DEFAULT_WEIGHTS, fetch
from .gguf_reader import GgufModel, read_gguf
from .tokenizer import build_tokenizer

RUNTIME_DIR = Path(__file__).parent / "runtime"
_ENGINE_PACKAGE = "xllamacpp"
_MODEL_DIR = f"model_repository/{MODEL_NAME}"
_VERSION_DIR = f"{_MODEL_DIR}/1"
_WEIGHTS = "model.gguf"
_GUIDED_DECODING = ("json", "json_schema", "regex", "ebnf_grammar")
_DEFAULT_MODEL_ID = "smollm2-135m-instruct"  # its file gives the name of a training run


def build(spec: LlamaCppSpec, *, runtime_dir: Path = RUNTIME_DIR) -> None:
    """Makes the bundle at `spec.out`. Leaves one that is just the same alone.

    `runtime_dir` holds the code of the Triton model. Raises EngineBuildError.
    """
    gguf = _default_weights(spec) if spec.gguf is None else spec.gguf.expanduser()
    source_sha256 = _digest_of(gguf)
    adapters = find_adapters(spec.adapters)
    inputs_sha256 = _digest_of_inputs(spec, gguf.name, source_sha256, adapters, runtime_dir)
    if is_made_from(inputs_sha256, spec.out):
        say(f"{spec.out} is built already, nothing to do")
        return
    with step(f"reading {gguf.name}"):
        model = read_gguf(gguf)
    for adapter in adapters:
        check_adapter(adapter, model)
    detected = _prompt_format(spec, model)
    with step("converting the tokenizer"):
        tokenizer = _tokenizer(model, detected.prompt_format)
    contents = {"tokenizer.json": tokenizer.encode(), **_model_files(spec, model, adapters, runtime_dir)}
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    large = {_WEIGHTS: (gguf, source_sha256)} | {each.file_name: (each.path, each.sha256) for each in adapters}
    files = digests | {f"{_VERSION_DIR}/{name}": digest for name, (_, digest) in large.items()}
    sources = {f"{_VERSION_DIR}/{name}": path for name, (path, _) in large.items()}
    description = _describe(spec, model, detected, adapters, source_sha256=source_sha256)
    bundle = Bundle(**description, files=files, inputs_sha256=inputs_sha256)
    place(Plan(bundle=bundle, contents=contents, sources=sources), spec.out, force=spec.force)
    _say_memory(model, bundle, adapters)


def _default_weights(spec: LlamaCppSpec) -> Path:
    try:
        return fetch(DEFAULT_WEIGHTS, spec.cache_dir)
    except DownloadError as error:
        raise DownloadError(f"{error} Or build from a file of your own with --gguf FILE.") from error


def _digest_of(gguf: Path) -> str:
    try:
        return sha256_of(gguf)
    except OSError as error:
        raise GgufError(f"{gguf} can't be read: {error.strerror}") from error


def _digest_of_inputs(
    spec: LlamaCppSpec, gguf_name: str, source_sha256: str, adapters: Sequence[Adapter], runtime_dir: Path
) -> str:
    """Digest of all that decides what a bundle will be: options, weights, and the programs that make and serve it."""
    options = [spec.model_id, spec.prompt_format, spec.context_length, spec.parallel_requests, spec.threads]
    programs = [*Path(__file__).parents[1].rglob("*.py"), *runtime_dir.glob("*.py")]
    digests = [sha256_of(path) for path in sorted(programs)]
    loras = [[adapter.name, adapter.sha256] for adapter in adapters]
    inputs = [*options, spec.prefill_chunk, gguf_name, source_sha256, loras, _engine_version(), digests]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def _prompt_format(spec: LlamaCppSpec, model: GgufModel) -> Detected:
    """The prompt format that the model's template proves, or the one that was asked for."""
    if spec.prompt_format is not None:
        return _unverified(PROMPT_FORMATS[spec.prompt_format], model)
    if not model.chat_template:
        raise ChatTemplateError(
            f"{model.path} carries no chat template, so its prompt format can't be told; "
            f"name it with --prompt-format {{{','.join(PROMPT_FORMATS)}}}"
        )
    try:
        return detect(_template(model))
    except ChatTemplateError as error:
        raise ChatTemplateError(f"{model.path}: {error}") from error


def _unverified(prompt_format: PromptFormat, model: GgufModel) -> Detected:
    say(f"prompt format {prompt_format.name} taken as asked for, not verified")
    try:
        default = default_system_prompt_of(_template(model), prompt_format) if model.chat_template else ""
    except ChatTemplateError:
        default = ""  # the template is of another kind, which is why the format was named by hand
    return Detected(prompt_format=prompt_format, default_system_prompt=default)


def _template(model: GgufModel) -> ChatTemplate:
    vocabulary = model.vocabulary
    return ChatTemplate(
        source=model.chat_template,
        begin_token=vocabulary.token(vocabulary.begin_id),
        end_token=vocabulary.token(vocabulary.end_id),
        adds_begin_token=vocabulary.adds_begin_token,
    )


def _tokenizer(model: GgufModel, prompt_format: PromptFormat) -> str:
    try:
        return build_tokenizer(model.vocabulary, control_tokens=_control_tokens(model, prompt_format))
    except TokenizerError as error:
        raise TokenizerError(f"{model.path}: {error}") from error


def _control_tokens(model: GgufModel, prompt_format: PromptFormat) -> set[str]:
    """Tokens that a caller's text must never become, even where the file calls them ordinary: the format's own, and
    all that begin or end a text, a turn or a message.
    """
    vocabulary = model.vocabulary
    declared = (vocabulary.begin_id, vocabulary.end_id, vocabulary.end_of_turn_id, vocabulary.end_of_message_id)
    ends = {*prompt_format.end_tokens, *prompt_format.end_tokens_if_named}.intersection(vocabulary.tokens)
    return {*prompt_format.special_tokens, *ends, *(vocabulary.tokens[id_] for id_ in declared if id_ is not None)}


def _model_files(
    spec: LlamaCppSpec, model: GgufModel, adapters: Sequence[Adapter], runtime_dir: Path
) -> dict[str, bytes]:
    """What Triton serves, apart from the weights and the adapters."""
    config = triton_config.cpu_model_config(
        gguf=_WEIGHTS,
        parallel_requests=spec.parallel_requests,
        context_length=_context_length(spec, model),
        threads=spec.threads,
        prefill_chunk=spec.prefill_chunk,
        adapters={adapter.task_id: adapter.file_name for adapter in adapters},
    )
    code = sorted(runtime_dir.glob("*.py"))
    if runtime_dir / "model.py" not in code:
        raise EngineBuildError(f"{runtime_dir} has no model.py; the installation of engine_build is not complete")
    files = {f"{_VERSION_DIR}/{path.name}": path.read_bytes() for path in code}
    return {f"{_MODEL_DIR}/config.pbtxt": triton_config.to_text(config).encode(), **files}


def _context_length(spec: LlamaCppSpec, model: GgufModel) -> int:
    asked = spec.context_length or model.context_length
    if asked > model.context_length:
        raise SpecError(f"--context-length {asked}: {model.path.name} was made for {model.context_length} at most")
    return asked


def _describe(
    spec: LlamaCppSpec, model: GgufModel, detected: Detected, adapters: Sequence[Adapter], *, source_sha256: str
) -> dict[str, Any]:
    """All fields of a Bundle that don't tell of files."""
    vocabulary, is_default = model.vocabulary, source_sha256 == DEFAULT_WEIGHTS.sha256
    ends = _end_ids(model, detected.prompt_format)
    return {
        "model_id": spec.model_id or (_DEFAULT_MODEL_ID if is_default else model.model_id),
        "display_name": DEFAULT_WEIGHTS.title if is_default else model.display_name,
        "prompt_format": detected.prompt_format.name,
        "default_system_prompt": detected.default_system_prompt,
        "end_ids": ends,
        "pad_id": ends[0] if vocabulary.padding_id is None else vocabulary.padding_id,
        "vocabulary_size": len(vocabulary.tokens),
        "context_length": _context_length(spec, model),
        "generation_defaults": model.generation_defaults,
        "adapters": {adapter.name: adapter.task_id for adapter in adapters},
        "guided_decoding": _GUIDED_DECODING,
        "license": model.license,
        "engine": Engine(
            kind="llama-cpp",
            version=f"{_ENGINE_PACKAGE} {_engine_version()}",
            source=model.path.name,
            source_sha256=source_sha256,
            parallel_requests=spec.parallel_requests,
        ),
    }


def _end_ids(model: GgufModel, prompt_format: PromptFormat) -> tuple[int, ...]:
    vocabulary = model.vocabulary
    declared = (vocabulary.end_id, vocabulary.end_of_turn_id, vocabulary.end_of_message_id)
    try:
        return end_ids(
            prompt_format,
            tokens=vocabulary.tokens,
            declared=[id_ for id_ in declared if id_ is not None],
            template=model.chat_template,
        )
    except ChatTemplateError as error:
        raise ChatTemplateError(f"{model.path}: {error}") from error


def _engine_version() -> str:
    try:
        return importlib.metadata.version(_ENGINE_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise EngineBuildError(
            f"{_ENGINE_PACKAGE}, which runs the model, is not installed here; pip install 'llamarpc[embedded]'"
        ) from None


def _say_memory(model: GgufModel, bundle: Bundle, adapters: Sequence[Adapter]) -> None:
    """Tells what serving will need: a large context times many requests is easily more than a machine has."""
    tokens = bundle.context_length * bundle.engine.parallel_requests
    cache, weights = tokens * model.cache_bytes_per_token, model.path.stat().st_size
    loras = sum(adapter.size_bytes for adapter in adapters)
    parts = [
        f"{readable_size(weights)} of weights",
        *([f"{readable_size(loras)} of LoRA adapters"] if loras else []),
        f"{readable_size(cache)} for {bundle.engine.parallel_requests} requests of {bundle.context_length} tokens",
    ]
    say(f"serving it takes about {readable_size(weights + loras + cache)} of memory: {', '.join(parts)}")
