"""Which prompt format a model was trained on: proved with probe conversations and the model's own chat template.

Every known format is written out here as text, and the template has to give that text, character for character. Knows
no weights file and no tokenizer. The server lays prompts out by itself; bundle.json names the format by
`PromptFormat.name`.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .errors import ChatTemplateError

Messages: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFormat:
    """One family's layout of a turn, and how its models end a reply."""

    name: str
    begin: str
    turn_start: str
    after_role: str
    turn_end: str
    strips_content: bool
    special_tokens: tuple[str, ...]
    """Control tokens that the vocabulary must have."""
    end_tokens: tuple[str, ...]
    """Tokens that end a reply, the usual one first."""
    end_tokens_if_named: tuple[str, ...] = ()
    """Tokens that end a reply in those models only whose template speaks of them."""

    def text(self, messages: Messages) -> str:
        """The conversation, with the assistant's turn left open."""
        turns = "".join(self.turn(role, content) for role, content in messages)
        return self.begin + turns + self.header("assistant")

    def turn(self, role: str, content: str) -> str:
        """One closed turn."""
        return self.header(role) + (content.strip() if self.strips_content else content) + self.turn_end

    def header(self, role: str) -> str:
        """What opens a turn."""
        return self.turn_start + role + self.after_role


CHATML = PromptFormat(
    name="chatml",
    begin="",
    turn_start="<|im_start|>",
    after_role="\n",
    turn_end="<|im_end|>\n",
    strips_content=False,
    special_tokens=("<|im_start|>", "<|im_end|>"),
    end_tokens=("<|im_end|>",),
)
LLAMA3 = PromptFormat(
    name="llama3",
    begin="<|begin_of_text|>",
    turn_start="<|start_header_id|>",
    after_role="<|end_header_id|>\n\n",
    turn_end="<|eot_id|>",
    strips_content=True,
    special_tokens=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    end_tokens=("<|eot_id|>", "<|end_of_text|>"),
    end_tokens_if_named=("<|eom_id|>",),
)
PROMPT_FORMATS = {each.name: each for each in (CHATML, LLAMA3)}

# What the template is tried on. The first has no system message and so shows the template's default one, the second
# tells whether contents are stripped, the third whether turns after the first are laid out alike.
_BARE: Messages = (("user", "How many {legs} has a spider?"),)
_PROBES: dict[str, Messages] = {
    "system and user": (("system", "  Be brief.\n"), ("user", "\n Two lines,\n\none blank \n")),
    "several turns": (
        ("system", "Answer in French."),
        ("user", "Good morning!"),
        ("assistant", " Bonjour\t!\n"),
        ("user", "<b>Ünïcode</b> 🦙 & 'quotes'"),
        ("assistant", "Oui."),
        ("user", "And now?"),
    ),
}
# Two days, to notice templates that write the date.
_CLOCKS = (datetime.datetime(2024, 7, 26), datetime.datetime(2031, 12, 9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """A format, and the system message that the template itself puts where a conversation has none (empty: none)."""

    prompt_format: PromptFormat
    default_system_prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """A model's chat template (Jinja), with the texts of its begin and end tokens.

    `adds_begin_token`: the tokenizer puts the begin token in front by itself, so the template may leave it out.
    """

    source: str
    begin_token: str
    end_token: str
    adds_begin_token: bool

    def render(self, messages: Messages, *, now: datetime.datetime = _CLOCKS[0]) -> str:
        """Renders like the transformers library does. Raises ChatTemplateError where the template fails or refuses."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = now.strftime
        try:
            return environment.from_string(self.source).render(
                messages=[{"role": role, "content": content} for role, content in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                bos_token=self.begin_token,
                eos_token=self.end_token,
            )
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            roles = ", ".join(role for role, _ in messages)
            raise ChatTemplateError(f"the chat template fails on a conversation of {roles}: {error}") from error


def detect(template: ChatTemplate) -> Detected:
    """Finds the format whose texts the template gives. Raises ChatTemplateError showing the first differences."""
    reports = []
    for prompt_format in PROMPT_FORMATS.values():
        try:
            return _prove(template, prompt_format)
        except ChatTemplateError as error:
            reports.append(f"  {prompt_format.name}: {error}")
    known = ", ".join(PROMPT_FORMATS)
    raise ChatTemplateError(
        f"the model's chat template is of no known prompt format (known: {known}).\n"
        + "\n".join(reports)
        + f"\nIf one of them fits the model all the same, name it with --prompt-format {{{known.replace(', ', ',')}}}."
    )


def default_system_prompt_of(template: ChatTemplate, prompt_format: PromptFormat) -> str:
    """What the template adds before a lone user message. Raises ChatTemplateError where that is no system message."""
    rendered, fixed = template.render(_BARE), prompt_format.text(_BARE)
    if rendered != template.render(_BARE, now=_CLOCKS[1]):
        raise ChatTemplateError("the template writes today's date, which the format doesn't")
    begin, bare = prompt_format.begin, fixed.removeprefix(prompt_format.begin)
    before, after = prompt_format.header("system"), prompt_format.turn_end + bare
    if template.adds_begin_token and not rendered.startswith(begin):
        rendered = begin + rendered
    if rendered == fixed:
        return ""
    if rendered.startswith(begin + before) and rendered.endswith(after):
        content = rendered[len(begin + before) : -len(after)]
        if prompt_format.turn_start not in content:
            return content
    raise ChatTemplateError(_first_difference("user", fixed, rendered))


def _prove(template: ChatTemplate, prompt_format: PromptFormat) -> Detected:
    default_system_prompt = default_system_prompt_of(template, prompt_format)
    for name, messages in _PROBES.items():
        expected, rendered = prompt_format.text(messages), template.render(messages)
        if template.adds_begin_token and not rendered.startswith(prompt_format.begin):
            rendered = prompt_format.begin + rendered
        if rendered != expected:
            raise ChatTemplateError(_first_difference(name, expected, rendered))
    return Detected(prompt_format=prompt_format, default_system_prompt=default_system_prompt)


def _first_difference(probe: str, expected: str, rendered: str) -> str:
    pairs = enumerate(itertools.zip_longest(expected, rendered))
    at = next(index for index, (ours, theirs) in pairs if ours != theirs)
    start = max(0, at - 12)
    return (
        f"differs on the probe '{probe}' at character {at}: "
        f"the format has {_excerpt(expected[start:])}, the template gives {_excerpt(rendered[start:])}"
    )


def _excerpt(text: str, length: int = 48) -> str:
    return repr(text[:length] + ("…" if len(text) > length else ""))


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def end_ids(
    prompt_format: PromptFormat, *, tokens: Sequence[str], declared: Sequence[int], template: str
) -> tuple[int, ...]:
    """Ids that end a reply: the format's own first, then those that the weights file declares.

    Raises ChatTemplateError where the vocabulary lacks the format's usual end token.
    """
    ids = {token: id_ for id_, token in enumerate(tokens)}
    first, *others = prompt_format.end_tokens
    if first not in ids:
        raise ChatTemplateError(
            f"the vocabulary has no {first}, with which prompt format {prompt_format.name} ends replies"
        )
    others += [token for token in prompt_format.end_tokens_if_named if token in template]
    found = [ids[first], *(ids[token] for token in others if token in ids), *declared]
    return tuple(dict.fromkeys(found))
