from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tokenizers import Tokenizer
from tritonclient.grpc import model_config_pb2

from engine_build.bundle import Bundle, read_bundle, sha256_of
from engine_build.bundle_writer import damaged_files
from engine_build.errors import ChatTemplateError, EngineBuildError, GgufError, SpecError, TokenizerError
from engine_build.inspection import inspect
from engine_build.llama_cpp.build import build
from engine_build.llama_cpp.download import DEFAULT_WEIGHTS, fetch
from engine_build.progress import readable_size
from engine_build.spec import LlamaCppSpec, cache_dir_from
from tests.lora_samples import pair, write_adapter

from ..gguf_samples import CONTROL_TOKENS, LLAMA3_TEMPLATE, NORMAL_TOKENS, write_gguf

pytestmark = pytest.mark.real_parts

_MODEL_DIR = "model_repository/tensorrt_llm"
_LLAMA3_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@pytest.fixture
def runtime_dir(tmp_path: Path) -> Path:
    """Stands for the code that Triton runs."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    (folder / "model.py").write_text("from .part import x\n")
    (folder / "part.py").write_text("x = 1\n")
    (folder / "notes.txt").write_text("no code")
    return folder


def _build(tmp_path: Path, runtime_dir: Path, gguf: Path, **options: Any) -> Bundle:
    out = tmp_path / "bundle"
    build(LlamaCppSpec(out=out, gguf=gguf, cache_dir=tmp_path / "cache", **options), runtime_dir=runtime_dir)
    bundle = read_bundle(out)
    assert damaged_files(bundle, out) == {}
    return bundle


def test_a_bundle_is_made(tmp_path: Path, runtime_dir: Path) -> None:
    gguf = write_gguf(tmp_path / "tiny.gguf")
    bundle = _build(tmp_path, runtime_dir, gguf, threads=3, parallel_requests=5)
    assert (bundle.model_id, bundle.display_name, bundle.license) == ("tiny-test-model", "Tiny Test Model", "mit")
    assert (bundle.prompt_format, bundle.default_system_prompt) == ("chatml", "You are a test")
    assert (bundle.end_ids, bundle.pad_id, bundle.context_length) == ((2,), 2, 2048)
    assert bundle.vocabulary_size == len(CONTROL_TOKENS) + len(NORMAL_TOKENS)
    assert (bundle.engine.kind, bundle.engine.source, bundle.engine.parallel_requests) == ("llama-cpp", "tiny.gguf", 5)
    folder = tmp_path / "bundle"
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() == bundle.vocabulary_size
    config = text_format.Parse((folder / _MODEL_DIR / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "gguf": "model.gguf",
        "parallel_requests": "5",
        "context_length": "2048",
        "threads": "3",
        "prefill_chunk": "64",
    }
    served = folder / _MODEL_DIR / "1"
    assert sorted(path.name for path in served.iterdir()) == ["model.gguf", "model.py", "part.py"]
    assert (served / "model.gguf").samefile(gguf)


def test_a_llama3_model_ends_with_its_own_token_first(tmp_path: Path, runtime_dir: Path) -> None:
    gguf = write_gguf(
        tmp_path / "tiny.gguf",
        control_tokens=_LLAMA3_TOKENS,
        template=LLAMA3_TEMPLATE,
        metadata={
            "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 1,
            "tokenizer.ggml.pre": "llama-bpe",
        },
    )
    bundle = _build(tmp_path, runtime_dir, gguf)
    assert (bundle.prompt_format, bundle.default_system_prompt) == ("llama3", "")
    assert (bundle.end_ids, bundle.pad_id) == ((4, 1), 4)


@pytest.mark.parametrize("token_type", [1, 4])  # normal, user-defined
def test_no_text_becomes_a_token_that_begins_or_ends(tmp_path: Path, runtime_dir: Path, token_type: int) -> None:
    names = (*_LLAMA3_TOKENS, "<|eom_id|>", "<|mine_begin|>", "<|mine_eos|>", "<|mine_eot|>", "<|mine_eom|>")
    gguf = write_gguf(
        tmp_path / "tiny.gguf",
        control_tokens=names,
        template=LLAMA3_TEMPLATE,
        metadata={
            "tokenizer.ggml.token_type": [token_type] * len(names) + [1] * len(NORMAL_TOKENS),
            **{f"tokenizer.ggml.{kind}_token_id": 6 + at for at, kind in enumerate(("bos", "eos", "eot", "eom"))},
            "tokenizer.ggml.pre": "llama-bpe",
        },
    )
    _build(tmp_path, runtime_dir, gguf, prompt_format="llama3")
    tokenizer = Tokenizer.from_file(str(tmp_path / "bundle" / "tokenizer.json"))
    assert [tokenizer.token_to_id(name) for name in names] == list(range(len(names)))
    tokenizer.encode_special_tokens = True  # as the server has it for what callers write
    ids = tokenizer.encode("hello " + " ".join(names) + "".join(names), add_special_tokens=False).ids
    assert min(ids) >= len(names)


def test_options_win_over_the_file(tmp_path: Path, runtime_dir: Path) -> None:
    gguf = write_gguf(tmp_path / "tiny.gguf", metadata={"tokenizer.ggml.padding_token_id": 0})
    bundle = _build(tmp_path, runtime_dir, gguf, model_id="@me/mine", context_length=100)
    assert (bundle.model_id, bundle.context_length, bundle.pad_id) == ("@me/mine", 100, 0)


@pytest.mark.parametrize(
    ("template", "default_system_prompt"),
    [(None, ""), ("{{ messages[0].content }}", ""), ("{{ 1 / 0 }}", "")],
)
def test_a_named_format_is_taken_unverified(
    tmp_path: Path,
    runtime_dir: Path,
    capsys: pytest.CaptureFixture[str],
    template: str | None,
    default_system_prompt: str,
) -> None:
    gguf = write_gguf(tmp_path / "tiny.gguf", template=template)
    bundle = _build(tmp_path, runtime_dir, gguf, prompt_format="chatml")
    assert (bundle.prompt_format, bundle.default_system_prompt) == ("chatml", default_system_prompt)
    assert "chatml taken as asked for, not verified" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sample", "options", "error", "text"),
    [
        ({"template": None}, {}, ChatTemplateError, "carries no chat template.*--prompt-format {chatml,llama3}"),
        ({"template": "x"}, {}, ChatTemplateError, "of no known prompt format"),
        ({}, {"prompt_format": "llama3"}, TokenizerError, "lacks the prompt format's tokens"),
        ({}, {"context_length": 4096}, SpecError, "--context-length 4096: tiny.gguf was made for 2048 at most"),
        ({"architecture": "phi3"}, {}, GgufError, "architecture is 'phi3'"),
        (
            {"metadata": {"tokenizer.ggml.pre": "tekken"}},
            {},
            TokenizerError,
            "tiny.gguf: the pre-tokenizer is 'tekken'",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_and_leaves_nothing(
    tmp_path: Path,
    runtime_dir: Path,
    sample: dict[str, Any],
    options: dict[str, Any],
    error: type[EngineBuildError],
    text: str,
) -> None:
    gguf = write_gguf(tmp_path / "tiny.gguf", **sample)
    with pytest.raises(error, match=text):
        _build(tmp_path, runtime_dir, gguf, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runtime", "tiny.gguf"]


def test_missing_weights_are_named(tmp_path: Path, runtime_dir: Path) -> None:
    with pytest.raises(GgufError, match=r"absent\.gguf can't be read: No such file"):
        _build(tmp_path, runtime_dir, tmp_path / "absent.gguf")


def test_missing_code_is_named(tmp_path: Path, runtime_dir: Path) -> None:
    (runtime_dir / "model.py").unlink()
    with pytest.raises(EngineBuildError, match=r"has no model\.py"):
        _build(tmp_path, runtime_dir, write_gguf(tmp_path / "tiny.gguf"))


def test_a_second_build_of_the_same_reads_nothing(
    tmp_path: Path, runtime_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf = write_gguf(tmp_path / "tiny.gguf")
    first = _build(tmp_path, runtime_dir, gguf)
    capsys.readouterr()
    assert _build(tmp_path, runtime_dir, gguf) == first
    assert capsys.readouterr().err == f"{tmp_path / 'bundle'} is built already, nothing to do\n"


def test_new_code_makes_another_bundle(tmp_path: Path, runtime_dir: Path) -> None:
    gguf = write_gguf(tmp_path / "tiny.gguf")
    first = _build(tmp_path, runtime_dir, gguf)
    (runtime_dir / "part.py").write_text("x = 2\n")
    with pytest.raises(EngineBuildError, match=r"differs in model_repository/tensorrt_llm/1/part\.py"):
        _build(tmp_path, runtime_dir, gguf)
    assert _build(tmp_path, runtime_dir, gguf, force=True).inputs_sha256 != first.inputs_sha256


_QUERY = "blk.0.attn_q.weight"


def _adapters(tmp_path: Path) -> dict[str, Path]:
    pairs = {name: pair(_QUERY, 8, 4, seed=seed) for seed, name in enumerate(("pirate", "french"))}
    return {name: write_adapter(tmp_path / f"{name}-lora.gguf", tensors) for name, tensors in pairs.items()}


def _model_to_adapt(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", weights={_QUERY: np.zeros((4, 8), np.float32)})


def test_adapters_are_taken_over(tmp_path: Path, runtime_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = _adapters(tmp_path)
    bundle = _build(tmp_path, runtime_dir, _model_to_adapt(tmp_path), adapters=files)
    assert bundle.adapters == {"pirate": 1, "french": 2}
    folder = tmp_path / "bundle" / _MODEL_DIR
    for name, task_id in bundle.adapters.items():
        assert (folder / "1" / f"lora-{task_id}.gguf").samefile(files[name])
        assert bundle.files[f"{_MODEL_DIR}/1/lora-{task_id}.gguf"] == sha256_of(files[name])
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.parameters["lora_adapters"].string_value == "1=lora-1.gguf,2=lora-2.gguf"
    assert " of LoRA adapters, " in capsys.readouterr().err
    page = inspect(tmp_path / "bundle").to_text()
    size = readable_size(files["pirate"].stat().st_size)
    assert f"pirate ({size}), french ({size})" in page


def test_other_adapters_make_another_bundle(
    tmp_path: Path, runtime_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf, files = _model_to_adapt(tmp_path), _adapters(tmp_path)
    first = _build(tmp_path, runtime_dir, gguf, adapters=files)
    capsys.readouterr()
    assert _build(tmp_path, runtime_dir, gguf, adapters=files) == first
    assert "is built already, nothing to do" in capsys.readouterr().err
    swapped = dict(reversed(files.items()))
    renamed = {"corsair": files["pirate"], "french": files["french"]}
    retrained = {**files, "french": write_adapter(tmp_path / "new.gguf", pair(_QUERY, 8, 4, seed=9))}
    for adapters in (swapped, renamed, retrained, {}):
        with pytest.raises(EngineBuildError, match=r"another bundle is there already \(it differs in "):
            _build(tmp_path, runtime_dir, gguf, adapters=adapters)


def test_an_adapter_for_another_model_leaves_nothing(tmp_path: Path, runtime_dir: Path) -> None:
    files = _adapters(tmp_path)
    with pytest.raises(
        GgufError, match=r"LoRA adapter pirate: .* changes blk\.0\.attn_q\.weight, which tiny\.gguf doesn"
    ):
        _build(tmp_path, runtime_dir, write_gguf(tmp_path / "tiny.gguf"), adapters=files)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.end_to_end
def test_the_default_model(tmp_path: Path) -> None:
    """Fetches the model where the user's cache doesn't hold it."""
    build(LlamaCppSpec(out=tmp_path / "bundle", cache_dir=cache_dir_from()))
    document = json.loads((tmp_path / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    engine, files = document.pop("engine"), document.pop("files")
    assert document.pop("inputs_sha256")
    assert document == {
        "schema_version": 1,
        "model_id": "smollm2-135m-instruct",
        "display_name": "SmolLM2 135M Instruct",
        "prompt_format": "chatml",
        "default_system_prompt": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        "end_ids": [2],
        "pad_id": 2,
        "vocabulary_size": 49152,
        "context_length": 8192,
        "generation_defaults": {},
        "adapters": {},
        "guided_decoding": ["json", "json_schema", "regex", "ebnf_grammar"],
        "license": "apache-2.0",
    }
    assert engine["source_sha256"] == DEFAULT_WEIGHTS.sha256 == files[f"{_MODEL_DIR}/1/model.gguf"]
    assert f"{_MODEL_DIR}/1/model.py" in files


def test_the_default_model_by_path_is_the_same_model(tmp_path: Path, runtime_dir: Path) -> None:
    bundle = _build(tmp_path, runtime_dir, fetch(DEFAULT_WEIGHTS, cache_dir_from()))
    assert bundle.model_id == "smollm2-135m-instruct"
