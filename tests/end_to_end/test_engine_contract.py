"""The `tensorrt_llm` contract on the CPU engine: a real Triton, the real model, raw tensors over gRPC."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
import jsonschema
import numpy as np
import pytest
import pytest_asyncio
from tokenizers import Tokenizer

from server.bundle import Bundle
from server.embedded import EmbeddedTriton
from tests.triton_fixtures import (
    EngineClient,
    Response,
    llama_cpp_repository,
    read_response,
    run_triton,
    tensors_of,
    word_list,
)
from tests.waiting import until

END_ID = 2
CONTEXT_LENGTH = 8192
SAMPLED: dict[str, Any] = {"runtime_top_k": 0, "runtime_top_p": 1.0, "temperature": 1.0}


@pytest_asyncio.fixture(loop_scope="session")
async def engine(real_triton: EmbeddedTriton) -> AsyncIterator[EngineClient]:
    async with EngineClient(real_triton.grpc_address) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small_engine(default_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineClient]:
    """The same engine with room for 64 ids and one slot, in a Triton of its own."""
    folder = tmp_path_factory.mktemp("small")
    weights = default_bundle.model_repository / "tensorrt_llm" / "1" / "model.gguf"
    repository = llama_cpp_repository(folder / "repository", weights, context_length=64, parallel_requests=1)
    async with run_triton(repository, folder / "triton.log") as triton, EngineClient(triton.grpc_address) as client:
        yield client


@pytest.fixture(scope="session")
def tokenizer(default_bundle: Bundle) -> Tokenizer:
    return Tokenizer.from_file(str(default_bundle.tokenizer_path))


@pytest.fixture(scope="session")
def hello(tokenizer: Tokenizer) -> list[int]:
    return chat(tokenizer, "What is the capital of France?")


def chat(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n").ids
    return ids


def guided(kind: str, text: str = "") -> dict[str, Any]:
    """The tensors of a guide."""
    tensors = {"guided_decoding_guide_type": [kind.encode()], "guided_decoding_guide": [text.encode()]}
    return {name: value for name, value in tensors.items() if value != [b""]}


async def requests_now(triton: EmbeddedTriton, request_type: str) -> int:
    def read() -> str:
        with urllib.request.urlopen(triton.metrics_url, timeout=5) as page:
            text: str = page.read().decode()
        return text

    pattern = rf'^nv_trt_llm_request_metrics{{[^}}]*request_type="{request_type}"[^}}]*}} (\d+)'
    found = re.search(pattern, await asyncio.to_thread(read), re.MULTILINE)
    assert found, "the gauge is not among Triton's metrics"
    return int(found[1])


async def all_idle(triton: EmbeddedTriton) -> bool:
    return not await requests_now(triton, "active") and not await requests_now(triton, "waiting")


async def test_streaming_gives_new_ids_and_ends_with_data(engine: EngineClient, hello: list[int]) -> None:
    responses = [r async for r in engine.stream(tensors_of(hello, 12, streaming=True))]
    assert [r.final for r in responses] == [False] * (len(responses) - 1) + [True]
    assert sum(len(r.ids) for r in responses) == 12
    for response in responses:
        assert response.tensors.keys() == {"output_ids", "sequence_length"}
        assert response.tensors["output_ids"].dtype == np.int32
        assert response.tensors["output_ids"].shape == (1, 1, len(response.ids))
        assert response.tensors["sequence_length"].tolist() == [[len(response.ids)]]


async def test_not_streaming_gives_prompt_and_output(engine: EngineClient, hello: list[int]) -> None:
    streamed = await engine.generate(tensors_of(hello, 12, streaming=True))
    (whole,) = [r async for r in engine.stream(tensors_of(hello, 12, streaming=False))]
    assert whole.final
    assert whole.ids == hello + streamed
    assert whole.tensors["sequence_length"].tolist() == [[len(hello) + 12]]
    assert await engine.generate(tensors_of(hello, 12, exclude_input_in_output=True)) == streamed


@pytest.mark.parametrize(
    "text", ["Say: 👩‍👩‍👧‍👦🏳️‍🌈🇫🇷", "日本語で答えてください 🗾", "Ωμέγα √∫≤≥ naïve ñ", "List ten emojis 🎉🔥🚀"]
)
async def test_no_id_is_lost_inside_a_character(engine: EngineClient, tokenizer: Tokenizer, text: str) -> None:
    prompt = chat(tokenizer, text)
    sampling = {**SAMPLED, "seed": 5, "temperature": 1.6}
    streamed = await engine.generate(tensors_of(prompt, 40, streaming=True, **sampling))
    whole = await engine.generate(tensors_of(prompt, 40, streaming=False, exclude_input_in_output=True, **sampling))
    assert streamed == whole
    assert len(streamed) == 40


async def test_end_id_ends_and_is_not_in_the_output(engine: EngineClient, hello: list[int]) -> None:
    responses = [r async for r in engine.stream(tensors_of(hello, 200, streaming=True, end_id=END_ID))]
    ids = [token for r in responses for token in r.ids]
    assert 0 < len(ids) < 200
    assert END_ID not in ids
    assert responses[-1].ids == []
    assert responses[-1].tensors["output_ids"].shape == (1, 1, 0)
    assert responses[-1].tensors["sequence_length"].tolist() == [[0]]


@pytest.mark.parametrize("end_id", [None, -1])
async def test_without_end_id_output_goes_on(engine: EngineClient, hello: list[int], end_id: int | None) -> None:
    natural = await engine.generate(tensors_of(hello, 200, streaming=True, end_id=END_ID))
    ids = await engine.generate(tensors_of(hello, len(natural) + 10, streaming=True, end_id=end_id))
    assert len(ids) == len(natural) + 10
    assert ids[len(natural)] == END_ID


async def test_min_tokens_holds_the_end_back(engine: EngineClient, hello: list[int]) -> None:
    natural = await engine.generate(tensors_of(hello, 200, streaming=True, end_id=END_ID))
    least = len(natural) + 5
    ids = await engine.generate(tensors_of(hello, 200, streaming=True, end_id=END_ID, min_tokens=least))
    assert len(ids) >= least
    assert ids[: len(natural)] == natural
    assert END_ID not in ids


async def test_stop_words_end_the_output_and_are_in_it(engine: EngineClient, hello: list[int]) -> None:
    free = await engine.generate(tensors_of(hello, 12, streaming=True))
    for word in ([free[4]], free[3:6], [40000, free[4]]):
        words = word_list([40001, 40002], word)
        responses = [r async for r in engine.stream(tensors_of(hello, 12, streaming=True, stop_words_list=words))]
        ids = [token for r in responses for token in r.ids]
        end = next((i for i in range(1, 13) if free[:i][-len(word) :] == word), 12)
        assert ids == free[:end]
        assert responses[-1].final
        assert responses[-1].ids


async def test_bad_words_never_appear(engine: EngineClient, hello: list[int]) -> None:
    free = await engine.generate(tensors_of(hello, 12, streaming=True))
    for word in ([free[0]], free[2:4], free[1:5]):
        ids = await engine.generate(tensors_of(hello, 12, streaming=True, bad_words_list=word_list(word)))
        at = next(i for i in range(12) if free[i : i + len(word)] == word) + len(word) - 1
        assert ids[:at] == free[:at]
        assert ids[at] != free[at]
        assert all(ids[i : i + len(word)] != word for i in range(12))


async def test_length_ends_at_the_context_without_error(small_engine: EngineClient) -> None:
    for left in (1, 3):
        ids = await small_engine.generate(tensors_of([300] * (64 - left), 50, streaming=True))
        assert len(ids) == left


async def test_prompt_of_the_whole_context_is_refused(small_engine: EngineClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"Prompt length \(64\) exceeds maximum input length \(63\)"):
        await small_engine.generate(tensors_of([300] * 64, 1, streaming=True))


async def test_seeds(engine: EngineClient, hello: list[int]) -> None:
    async def draw(seed: int | None) -> list[int]:
        return await engine.generate(tensors_of(hello, 16, streaming=True, seed=seed, **SAMPLED))

    seeds = [None, 0, 0, 1, 1, 2**32, 2**32 + 1, 9_999_999_999, 2**64 - 1]
    drawn = await asyncio.gather(*map(draw, seeds))
    assert drawn[0] == drawn[1] == drawn[2]
    assert drawn[3] == drawn[4]
    assert len({tuple(ids) for ids in drawn}) == 6


@pytest.mark.parametrize(
    "sampling",
    [{"temperature": 2.0}, {"runtime_top_k": 1}, {"runtime_top_k": 0}, {"temperature": 0.0, "runtime_top_p": 0.9}],
)
async def test_greedy_without_top_k_or_top_p(engine: EngineClient, hello: list[int], sampling: dict[str, Any]) -> None:
    greedy = await engine.generate(tensors_of(hello, 10, streaming=True))
    assert await engine.generate(tensors_of(hello, 10, streaming=True, seed=77, **sampling)) == greedy


@pytest.mark.parametrize("penalty", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
async def test_penalties_stop_repetition(engine: EngineClient, hello: list[int], penalty: str) -> None:
    repeating = hello + [300, 301] * 10
    plain = await engine.generate(tensors_of(repeating, 30, streaming=True))
    ids = await engine.generate(tensors_of(repeating, 30, streaming=True, **{penalty: 20.0}))
    assert len(set(plain)) < len(set(ids))
    assert len(set(ids)) > 25
    assert not {300, 301} & set(ids)


async def test_log_probs_and_counts(engine: EngineClient, hello: list[int]) -> None:
    asked = {"return_log_probs": True, "return_num_input_tokens": True, "return_num_output_tokens": True}
    streamed = [r async for r in engine.stream(tensors_of(hello, 8, streaming=True, **asked))]
    (whole,) = [r async for r in engine.stream(tensors_of(hello, 8, **asked))]
    log_probs = np.concatenate([r.tensors["output_log_probs"] for r in streamed], axis=2)
    assert log_probs.shape == (1, 1, 8)
    assert (log_probs < 0).all()
    assert np.array_equal(log_probs, whole.tensors["output_log_probs"])
    cumulative = [float(r.tensors["cum_log_probs"][0, 0]) for r in streamed]
    assert cumulative == pytest.approx(np.cumsum(log_probs).tolist(), abs=1e-4)
    assert whole.tensors["cum_log_probs"].tolist() == [[pytest.approx(cumulative[-1])]]
    assert [r.tensors["num_output_tokens"].tolist() for r in streamed] == [[[1]]] * 8
    assert {int(r.tensors["num_input_tokens"][0, 0]) for r in (*streamed, whole)} == {len(hello)}
    assert whole.tensors["num_output_tokens"].tolist() == [[len(hello) + 8]]


async def test_results_do_not_depend_on_other_requests(engine: EngineClient, tokenizer: Tokenizer) -> None:
    """24 requests of all lengths at once, more than there are slots, against each one alone: bit for bit.

    Six of them have more than 300 tokens, where llama.cpp would like to take other kernels for rows computed alone.
    """
    prompts = [
        chat(tokenizer, "Tell me about the number " + "seven " * (7 * i % 40 + 300 * (i % 4 == 0)) + str(i))
        for i in range(24)
    ]
    inputs = [
        tensors_of(p, 8, streaming=True, return_log_probs=True, seed=i, **(SAMPLED if i % 2 else {}))
        for i, p in enumerate(prompts)
    ]

    async def run(tensors: dict[str, Any]) -> tuple[list[int], list[bytes]]:
        responses = [r async for r in engine.stream(tensors)]
        return [t for r in responses for t in r.ids], [r.tensors["output_log_probs"].tobytes() for r in responses]

    together = await asyncio.gather(*map(run, inputs))
    for i in (0, 5, 8, 11, 16, 23):
        assert await run(inputs[i]) == together[i]


async def test_cancel_frees_the_slot(engine: EngineClient, hello: list[int], real_triton: EmbeddedTriton) -> None:
    """Half of the cancellations take less than 100 ms, from the call's end to the gauge that says so.

    Triton reads the gauge when it is asked, and the engine sets it within 20 ms after the slot is free, so the slot
    itself is free sooner.
    """
    took = []
    for _ in range(11):
        await until(lambda: all_idle(real_triton), seconds=5, what="idle before")
        call = await engine.open(tensors_of(hello, 4000, streaming=True))
        await call.read()
        await until(lambda: _is(real_triton, "active", 1), seconds=2, what="one active")
        call.cancel()
        took.append(await until(lambda: all_idle(real_triton), seconds=2, what="the slot is free"))
    assert statistics.median(took) < 0.1, took


async def test_cancel_of_a_queued_request_and_of_a_long_prompt(
    engine: EngineClient, hello: list[int], real_triton: EmbeddedTriton
) -> None:
    calls = [await engine.open(tensors_of([300] * 4000, 4000, streaming=True)) for _ in range(11)]
    await until(lambda: _is(real_triton, "active", 8), seconds=5, what="all slots are taken")
    await until(lambda: _is(real_triton, "waiting", 3), seconds=5, what="three wait")
    assert await requests_now(real_triton, "max") == 8
    calls[-1].cancel()
    assert await until(lambda: _is(real_triton, "waiting", 2), seconds=2, what="the queued one has gone") < 0.6
    for call in calls:
        call.cancel()
    assert await until(lambda: all_idle(real_triton), seconds=2, what="all are free") < 0.8


async def _is(triton: EmbeddedTriton, request_type: str, count: int) -> bool:
    return await requests_now(triton, request_type) == count


async def test_stop_request_ends_the_live_one(engine: EngineClient, hello: list[int]) -> None:
    call = await engine.open(tensors_of(hello, 4000, streaming=True), request_id="live-1")
    await call.read()
    (answer,) = [r async for r in engine.stream(tensors_of([1], 1, stop=True), request_id="live-1")]
    assert answer == Response(tensors={}, final=True)
    responses = [read_response(await call.read())]
    while not responses[-1].final:
        responses.append(read_response(await call.read()))
    call.cancel()
    assert responses[-1].ids == []
    assert len(responses) < 100


async def test_stop_request_with_unknown_id_succeeds(engine: EngineClient) -> None:
    (answer,) = [r async for r in engine.stream(tensors_of([1], 1, stop=True), request_id="nobody")]
    assert answer == Response(tensors={}, final=True)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"stop": True}, "Trying to stop a request but request ID is not provided"),
        ({"input_ids": None, "seed": 1}, "input_ids is not present in the request"),
        ({"input_ids": [1] * CONTEXT_LENGTH, "input_lengths": CONTEXT_LENGTH}, "Prompt length (8192) exceeds maximum"),
        ({"input_ids": [1, 49152], "input_lengths": 2}, "input_ids holds the id 49152 at position 1"),
        ({"runtime_top_p": 1.5}, "runtime_top_p is 1.5, outside (0, 1]"),
        ({"temperature": -1.0}, "temperature is -1, outside [0, inf)"),
        ({"end_id": 49152}, "end_id is 49152, outside [-1, 49151]"),
        ({"beam_width": 2}, "beam_width cannot be honoured"),
        ({"lora_task_id": 1}, "lora_task_id is 1; this bundle has no LoRA adapters"),
        (
            {"guided_decoding_guide_type": [b"xml"]},
            "guided_decoding_guide_type is 'xml'; it must be one of json, json_s",
        ),
        ({"guided_decoding_guide": [b"{}"]}, "guided_decoding_guide_type is missing; it must be one of json, json_s"),
        (guided("regex"), "guided_decoding_guide is missing; guided_decoding_guide_type regex needs it"),
        (guided("regex", "a(b"), "guided_decoding_guide: invalid regex"),
        (
            guided("json_schema", '{"type": "strin"}'),
            "guided_decoding_guide: failed to compile JSON schema: Invalid type",
        ),
        (guided("ebnf_grammar", 'root ::= "a"\n  x'), "guided_decoding_guide, line 2, column 3: there is no rule x"),
        ({"embedding_bias": [0.0] * 10}, "embedding_bias cannot be honoured"),
        ({"stop_words_list": [[1, 2], [2, 1]]}, "stop_words_list has offsets that do not increase"),
    ],
)
async def test_errors_name_the_tensor(engine: EngineClient, values: dict[str, Any], text: str) -> None:
    given = {"input_ids": [1], "input_lengths": 1, **values}
    tensors = tensors_of(given.pop("input_ids") or [], 5, **given)
    if values.get("input_ids", 0) is None:
        del tensors["input_ids"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await engine.generate(tensors)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in (caught.value.details() or "")


@pytest.mark.parametrize("outputs", [("output_ids",), ("sequence_length", "cum_log_probs")])
async def test_named_outputs_must_hold_ids_and_length(engine: EngineClient, outputs: tuple[str, ...]) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="tensor must be present in list of output tensors"):
        await engine.generate(tensors_of([1], 2, streaming=True), outputs=outputs)


async def test_outputs_not_named_are_left_out(engine: EngineClient, hello: list[int]) -> None:
    tensors = tensors_of(hello, 2, return_log_probs=True)
    (whole,) = [r async for r in engine.stream(tensors, outputs=("output_ids", "sequence_length", "cum_log_probs"))]
    assert whole.tensors.keys() == {"output_ids", "sequence_length", "cum_log_probs"}


CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}
# llguidance's own key: no white space, of which a high temperature may draw any number.
DENSE = {"x-guidance": {"whitespace_flexible": False}}
CALL = r"""root ::= "{" "\"city\": " text ", " "\"days\": " [1-9] [0-9]? "}" | "none"
text ::= "\"" [^"\\\x00-\x1F]{1,20} "\"" # as GBNF and XGrammar write it"""


def is_city(text: str) -> None:
    jsonschema.validate(json.loads(text), CITY)


def is_call(text: str) -> None:
    assert re.fullmatch(r'none|\{"city": "[^"\\\x00-\x1f]{1,20}", "days": [1-9][0-9]?\}', text)


@pytest.mark.parametrize("sampling", [{}, {**SAMPLED, "temperature": 1.5, "seed": 3}, {"runtime_top_k": 5, "seed": 4}])
@pytest.mark.parametrize(
    ("guide", "judge"),
    [
        (guided("json_schema", json.dumps(CITY | DENSE)), is_city),
        (
            guided("regex", r"(Paris|Rome|[A-Z][a-z]{3,8}), [0-9]{2}\."),
            re.compile("[A-Z][a-z]+, [0-9]{2}[.]").fullmatch,
        ),
        (guided("ebnf_grammar", CALL), is_call),
    ],
)
async def test_guided_text_is_what_was_asked_for(
    engine: EngineClient,
    hello: list[int],
    tokenizer: Tokenizer,
    guide: dict[str, Any],
    judge: Callable[[str], object],
    sampling: dict[str, Any],
) -> None:
    tensors = tensors_of(hello, 100, streaming=True, end_id=END_ID, **guide, **sampling)
    responses = [r async for r in engine.stream(tensors)]
    ids = [token for r in responses for token in r.ids]
    text = tokenizer.decode(ids, skip_special_tokens=False)
    judge(text)
    assert text
    assert responses[-1].ids, "a complete text ends with its last id"
    tensors = tensors_of(hello, 100, exclude_input_in_output=True, end_id=END_ID, **guide, **sampling)
    assert await engine.generate(tensors) == ids


async def test_guided_json_is_an_object_or_array(engine: EngineClient, hello: list[int], tokenizer: Tokenizer) -> None:
    text = tokenizer.decode(
        await engine.generate(tensors_of(hello, 60, streaming=True, end_id=END_ID, **guided("json")))
    )
    assert text[0] in "{["


async def test_a_guide_that_allows_everything_changes_nothing(engine: EngineClient, hello: list[int]) -> None:
    everything = guided("ebnf_grammar", r"root ::= [\x00-\U0010FFFF]*")
    for sampling in ({}, {**SAMPLED, "seed": 7}):
        asked = {"streaming": True, "end_id": END_ID, **sampling}
        free = await engine.generate(tensors_of(hello, 40, **asked))
        assert await engine.generate(tensors_of(hello, 40, **asked, **everything)) == free


async def test_guided_requests_do_not_touch_others(engine: EngineClient, tokenizer: Tokenizer) -> None:
    """12 requests at once, every second one guided, against each one alone: bit for bit."""
    guides = [{}, guided("ebnf_grammar", CALL), {}, guided("json_schema", json.dumps(CITY))]
    inputs = [
        tensors_of(
            chat(tokenizer, f"Name city {i}"),
            16,
            streaming=True,
            return_log_probs=True,
            end_id=END_ID,
            seed=i,
            **guides[i % 4],
            **(SAMPLED if i % 3 else {}),
        )
        for i in range(12)
    ]

    async def run(tensors: dict[str, Any]) -> tuple[list[int], bytes]:
        responses = [r async for r in engine.stream(tensors)]
        log_probs = b"".join(r.tensors["output_log_probs"].tobytes() for r in responses)
        return [token for r in responses for token in r.ids], log_probs

    together = await asyncio.gather(*map(run, inputs))
    assert [await run(tensors) for tensors in inputs] == together


async def test_large_grammars_hold_nobody_up(engine: EngineClient, hello: list[int]) -> None:
    """While a grammar of some hundred kilobytes is compiled, another request goes on."""
    rules = "".join(f'r{i} ::= "{i:06} {"lorem ipsum dolor " * 20}"\n' for i in range(800))
    large = guided("ebnf_grammar", f"root ::= {' | '.join(f'r{i}' for i in range(800))}\n{rules}")
    call = await engine.open(tensors_of(hello, 300, streaming=True))
    await call.read()
    text = asyncio.create_task(engine.generate(tensors_of(hello, 20, streaming=True, end_id=END_ID, **large)))
    meanwhile = 0
    while not text.done():
        await call.read()
        meanwhile += 1
    call.cancel()
    assert len(await text) == 20
    assert meanwhile > 20, "the steps of the guided request alone are 20"


async def test_stop_while_guides_are_compiled(
    engine: EngineClient, hello: list[int], real_triton: EmbeddedTriton
) -> None:
    """Those being compiled and those waiting behind them all end, each with one empty final response."""
    word = "lorem ipsum dolor " * 20_000
    calls = []
    for index in range(4):
        large = guided("ebnf_grammar", f'root ::= "{index} {word}"')
        calls.append(await engine.open(tensors_of(hello, 4000, streaming=True, **large), request_id="large"))
    answers = [asyncio.ensure_future(call.read()) for call in calls]
    unanswered = set(answers)
    while unanswered:  # again and again: they may arrive after the first stop
        assert [r.final async for r in engine.stream(tensors_of([1], 1, stop=True), request_id="large")] == [True]
        _, unanswered = await asyncio.wait(unanswered, timeout=0.1)
    responses = [read_response(answer.result()) for answer in answers]
    assert [(response.ids, response.final) for response in responses] == [([], True)] * 4
    for call in calls:
        call.cancel()
    await until(lambda: all_idle(real_triton), seconds=2, what="none holds a slot")


async def test_a_guide_that_gets_out_of_hand_fails_alone(engine: EngineClient, hello: list[int]) -> None:
    hostile = guided("ebnf_grammar", 'root ::= "a"{30} ' + '"a"?' * 4_900)
    fine = asyncio.create_task(engine.generate(tensors_of(hello, 30, streaming=True)))
    with pytest.raises(grpc.aio.AioRpcError, match="the guide cannot be followed further") as caught:
        await engine.generate(tensors_of(hello, 100, streaming=True, end_id=END_ID, **hostile))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert len(await fine) == 30
