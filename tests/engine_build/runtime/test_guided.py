"""The two guide tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine_build.llama_cpp.runtime.errors import RequestError
from engine_build.llama_cpp.runtime.guided import MOST_BYTES, GuideText, guide_text_from_tensors


def read(kind: Any = None, text: Any = None) -> GuideText | None:
    given = {"guided_decoding_guide_type": kind, "guided_decoding_guide": text}
    return guide_text_from_tensors({name: np.array(value, np.object_) for name, value in given.items() if value})


@pytest.mark.parametrize(("kind", "text"), [(None, None), ([[b""]], None), ([b""], [""]), (None, [[""]])])
def test_no_guide(kind: Any, text: Any) -> None:
    assert read(kind, text) is None


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ([[b"json"]], None, GuideText(kind="json", text="")),
        (["json"], [b""], GuideText(kind="json", text="")),
        ([b"json_schema"], [b"{}"], GuideText(kind="json_schema", text="{}")),
        ([b"regex"], ["é"], GuideText(kind="regex", text="é")),
        ([b"ebnf_grammar"], ["é".encode()], GuideText(kind="ebnf_grammar", text="é")),
        ([b"regex"], [b"a" * 65_536], GuideText(kind="regex", text="a" * 65_536)),
        ([b"ebnf_grammar"], [b"a" * MOST_BYTES], GuideText(kind="ebnf_grammar", text="a" * MOST_BYTES)),
    ],
)
def test_reads(kind: Any, text: Any, expected: GuideText) -> None:
    assert read(kind, text) == expected


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ([b"grammar"], [b"x"], "guided_decoding_guide_type is 'grammar'; it must be one of json, json_schema, regex, "),
        (None, [b"x"], "guided_decoding_guide_type is missing; it must be one of json, json_schema, regex, "),
        ([b"json"], [b"{}"], "guided_decoding_guide must be empty where guided_decoding_guide_type is json"),
        ([b"regex"], None, "guided_decoding_guide is missing; guided_decoding_guide_type regex needs it"),
        ([b"regex"], [b"a" * 65_537], "guided_decoding_guide is 65537 bytes long; at most 65536 are"),
        ([b"json_schema"], [b"a" * 65_537], "guided_decoding_guide is 65537 bytes long; at most 65536 are"),
        ([b"ebnf_grammar"], [b"a" * (MOST_BYTES + 1)], "guided_decoding_guide is 1048577 bytes long; at most 104857"),
        ([b"regex"], [b"a\xff"], "guided_decoding_guide is not UTF-8: invalid start byte at byte 1"),
        ([b"regex"], ["\ud800"], "guided_decoding_guide is not UTF-8"),
        ([b"regex"], [b"a", b"b"], "guided_decoding_guide has shape [2]; it must hold one value"),
        ([b"x" * 1000], [b"a"], "guided_decoding_guide_type is 'xxx"),
    ],
)
def test_refuses(kind: Any, text: Any, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(kind, text)
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 200
