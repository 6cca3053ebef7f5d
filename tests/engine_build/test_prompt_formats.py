import re

import pytest

from engine_build.errors import ChatTemplateError
from engine_build.prompt_formats import CHATML, LLAMA3, ChatTemplate, PromptFormat, detect, end_ids

from .gguf_samples import CHATML_TEMPLATE, LLAMA3_TEMPLATE

_PLAIN_CHATML = CHATML_TEMPLATE.replace("You are a test", "").replace("{{ '<|im_start|>system\n<|im_end|>\n' }}", "")
# Llama 3's own shape with what 3.1 added: a system turn with the date, always.
_DATED_LLAMA3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content']|trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + (DATE) + '\n\n' + system + '<|eot_id|>' }}"
) + LLAMA3_TEMPLATE.replace("{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}", "")


def _template(source: str, *, begin_token: str = "<|begin_of_text|>", adds_begin_token: bool = False) -> ChatTemplate:
    return ChatTemplate(
        source=source, begin_token=begin_token, end_token="<|eot_id|>", adds_begin_token=adds_begin_token
    )


@pytest.mark.parametrize(
    ("source", "name", "default_system_prompt"),
    [
        (CHATML_TEMPLATE, "chatml", "You are a test"),
        (_PLAIN_CHATML, "chatml", ""),
        (LLAMA3_TEMPLATE, "llama3", ""),
        (
            "{% for message in messages %}{% if false %}{% break %}{% endif %}{% endfor %}" + LLAMA3_TEMPLATE,
            "llama3",
            "",
        ),
        ("{% if false %}{{ raise_exception('no') }}{% endif %}" + CHATML_TEMPLATE, "chatml", "You are a test"),
        ("{% if tools %}{{ tools | tojson }}{% endif %}\n" + CHATML_TEMPLATE, "chatml", "You are a test"),
    ],
)
def test_formats_are_proved(source: str, name: str, default_system_prompt: str) -> None:
    detected = detect(_template(source))
    assert (detected.prompt_format.name, detected.default_system_prompt) == (name, default_system_prompt)


def test_the_begin_token_may_come_from_the_tokenizer() -> None:
    source = LLAMA3_TEMPLATE.replace("bos_token + content", "content")
    assert detect(_template(source, adds_begin_token=True)).prompt_format is LLAMA3
    with pytest.raises(ChatTemplateError, match="llama3: differs on the probe 'user' at character 2"):
        detect(_template(source))


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        (
            "{{ messages[0].content }}",
            ["chatml: differs on the probe 'user' at character 0", "the template gives 'How"],
        ),
        (
            CHATML_TEMPLATE.replace("message['content']", "message['content'] | trim"),
            ["probe 'system and user'", "'chatml'"],
        ),
        (LLAMA3_TEMPLATE.replace("| trim", ""), ["llama3: differs on the probe 'system and user'"]),
        (LLAMA3_TEMPLATE.replace("\n\n", "\n"), ["llama3: differs on the probe 'user' at character 5"]),
        ("{{ bos_token }}" + CHATML_TEMPLATE, ["chatml: differs on the probe 'user' at character 2"]),
        (_DATED_LLAMA3.replace("DATE", "'26 Jul 2024'"), ["llama3: differs on the probe 'system and user'"]),
        (_DATED_LLAMA3.replace("DATE", "strftime_now('%d %b %Y')"), ["llama3: the template writes today's date"]),
        (CHATML_TEMPLATE.replace("message in messages", "message in messages[:3]"), ["on the probe 'several turns'"]),
        ("{{ raise_exception('only one turn') }}", ["fails on a conversation of user: only one turn"]),
        ("{% nonsense %}", ["unknown tag 'nonsense'"]),
        ("{{ 1 / 0 }}", ["division by zero"]),
        ("{{ messages.__class__.__mro__ }}", ["unsafe"]),
    ],
)
def test_other_templates_are_refused_with_the_first_difference(source: str, texts: list[str]) -> None:
    with pytest.raises(ChatTemplateError) as caught:
        detect(_template(source))
    message = str(caught.value)
    assert "known: chatml, llama3" in message
    assert "--prompt-format {chatml,llama3}" in message
    assert [text for text in texts if text.strip("'") not in message] == []


_TOKENS = ("a", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>")


@pytest.mark.parametrize(
    ("prompt_format", "declared", "template", "expected"),
    [
        (CHATML, (), "", (1,)),
        (CHATML, (1,), "", (1,)),
        (CHATML, (3, 1), "", (1, 3)),
        (LLAMA3, (), "", (2, 3)),
        (LLAMA3, (3,), "", (2, 3)),
        (LLAMA3, (), "… <|eom_id|> …", (2, 3, 4)),
        (LLAMA3, (0, 4), "", (2, 3, 0, 4)),
    ],
)
def test_end_ids_begin_with_the_formats_own(
    prompt_format: PromptFormat, declared: tuple[int, ...], template: str, expected: tuple[int, ...]
) -> None:
    assert end_ids(prompt_format, tokens=_TOKENS, declared=declared, template=template) == expected


def test_a_vocabulary_without_the_end_token_is_refused() -> None:
    with pytest.raises(ChatTemplateError, match=re.escape("no <|im_end|>")):
        end_ids(CHATML, tokens=("a",), declared=(0,), template="")
