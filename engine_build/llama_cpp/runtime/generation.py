"""One request on its way through the engine: what has been computed, what has been chosen, and what is handed out.

Knows sampling, stop words and guides; knows no llama.cpp, no threads and no Triton.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .requests import GenerationRequest
from .sampling import Logits, Sampler
from .stop_words import StopWords


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """New ids (possibly none) of a request. With `final` nothing follows.

    `log_probs` has one entry per id and `cumulative_log_prob` covers the output so far; both only when asked for.
    """

    ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    cumulative_log_prob: float = 0.0
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The request ended without its result; nothing follows.

    `unavailable`: not now, another engine may do it. `invalid`: the request is wrong, none will do it.
    """

    message: str
    unavailable: bool = False
    invalid: bool = False


Event = Tokens | Failed
EventHandler = Callable[[Event], None]


class Generation:
    """The state of one request. Only the engine's thread touches it, but for `cancelled`, which others set."""

    def __init__(
        self, request: GenerationRequest, on_event: EventHandler, *, request_id: str, vocabulary_size: int
    ) -> None:
        self.request = request
        self.request_id = request_id
        self.cancelled = False
        self.ended = False
        self.slot = -1
        self.computed = 0
        self._sequence = list(request.prompt)
        self._on_event = on_event
        self._sampler = Sampler(request, vocabulary_size)
        self._stop_words = StopWords(request.stop_words)
        self._cumulative_log_prob = 0.0

    @property
    def reads_prompt(self) -> bool:
        """True until every id of the prompt has been computed or is about to be in a step of its own."""
        return len(self._sequence) - self.computed > 1

    @property
    def pending(self) -> int:
        """How many ids have to be computed before the next one can be chosen."""
        return len(self._sequence) - self.computed

    def next_tokens(self, count: int) -> list[int]:
        """The next `count` ids to compute, from position `computed` on."""
        return self._sequence[self.computed : self.computed + count]

    def accept(self, logits: Logits) -> None:
        """Choose the next id from the logits of the last one and hand it out.

        Raises:
            SamplingError: no id can be chosen.
        """
        choice = self._sampler.choose(logits, self._sequence)
        if choice is None or choice.token == self.request.end_id:
            self.finish()
            return
        token, log_prob = choice
        self._sequence.append(token)
        self._cumulative_log_prob += log_prob or 0.0
        generated = len(self._sequence) - len(self.request.prompt)
        self._hand_out(
            Tokens(
                ids=(token,),
                log_probs=() if log_prob is None else (log_prob,),
                cumulative_log_prob=self._cumulative_log_prob,
                final=generated >= self.request.max_new_tokens
                or self._stop_words.end(self._sequence)
                or (self.request.guide is not None and self.request.guide.is_complete),
            )
        )

    def finish(self) -> None:
        """End without a further id: the model or the guide ended, or the request was cancelled."""
        self._hand_out(Tokens(cumulative_log_prob=self._cumulative_log_prob, final=True))

    def fail(self, message: str, *, unavailable: bool = False) -> None:
        """End with an error, unless it has ended already."""
        self._hand_out(Failed(message=message, unavailable=unavailable))

    def _hand_out(self, event: Event) -> None:
        if self.ended:
            return
        self.ended = isinstance(event, Failed) or event.final
        self._on_event(event)
