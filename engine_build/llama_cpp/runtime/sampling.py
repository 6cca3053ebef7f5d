"""From one row of logits to one token.

Knows numpy, and a guide as something to ask. The order is upstream's: bans, temperature, penalties, top_k, top_p, draw.
Drawing has its own generator per request, so all 2^64 seeds differ and no request touches another's numbers.

With a guide, a token is chosen as without one, then again without those that the guide has refused; after some tries,
without all that it would refuse. Asking about one token takes microseconds, about all of them milliseconds, or too long
for an ambiguous grammar; and most that a model wants is allowed, as it was told what to write. Where neither top_k nor
top_p cut, this draws as if masked at first: the chances of what is allowed stay in proportion. Where they cut, it keeps
closer to the model: the first choice cuts from everything, later ones from what is left.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .guided import Guide
from .requests import GenerationRequest
from .stop_words import BadWords

Logits = NDArray[np.float32]

# The draw is as good as decided long before; dividing by less would overflow.
_LEAST_TEMPERATURE = 1e-6

# Where a guide allows much, a few tries find some of it; where it allows little, the mask takes no time.
_TRIES_BEFORE_MASK = 8
_MOST_TRIES = 500


class SamplingError(RuntimeError):
    """No token can be chosen."""


class Choice(NamedTuple):
    """A token, and (only when asked for) its natural log probability.

    That is the log-softmax of the logits the token was chosen from: after bans, temperature and penalties, before
    a guide, top_k and top_p cut candidates away.
    """

    token: int
    log_prob: float | None


class Sampler:
    """Chooses the tokens of one request."""

    def __init__(self, request: GenerationRequest, vocabulary_size: int) -> None:
        self._request = request
        self._sampling = request.sampling
        self._guide = request.guide
        self._bad_words = BadWords(request.bad_words)
        self._random = np.random.Generator(np.random.PCG64(request.sampling.seed))
        self._counts: NDArray[np.int64] | None = None
        if _has_penalties(request):
            self._counts = np.bincount(request.prompt, minlength=vocabulary_size)

    def choose(self, logits: Logits, sequence: Sequence[int]) -> Choice | None:
        """Choose the token that follows `sequence` (prompt and output so far). Writes to `logits`.

        None where a guide lets the output end and no token is left, even if min_tokens holds the end back.

        Raises:
            SamplingError: every token is banned or refused by the guide, or the model gave no usable numbers.
        """
        self._ban(logits, sequence)
        if self._sampling.temperature not in (0.0, 1.0):
            logits = logits / np.float32(max(self._sampling.temperature, _LEAST_TEMPERATURE))
        if self._counts is not None:
            self._penalize(logits, self._counts)
        token = self._pick(logits) if self._guide is None else self._pick_guided(logits, self._guide)
        if token is None:
            return None
        if self._counts is not None:
            self._counts[token] += 1
        return Choice(token, _log_prob(logits, token) if self._request.log_probs else None)

    def _pick(self, logits: Logits) -> int:
        token = int(logits.argmax())
        if not np.isfinite(logits[token]):
            raise SamplingError(
                "no token can be chosen: all are banned or refused, or the model's output is not a number"
            )
        return token if self._sampling.is_greedy else self._draw(logits)

    def _pick_guided(self, logits: Logits, guide: Guide) -> int | None:
        left = logits
        for tries in range(1, _MOST_TRIES + 1):
            if left.max() == -np.inf and guide.may_end:
                return None
            token = self._pick(left)
            if guide.allows(token):
                guide.accept(token)
                return token
            if tries == 1:
                left = logits.copy()  # what log_probs are computed from stays
            left[token] = -np.inf
            if tries == _TRIES_BEFORE_MASK:
                left[~guide.mask()] = -np.inf
        raise SamplingError(
            f"no token can be chosen: the guide refuses the {_MOST_TRIES} that the model would rather have"
        )

    def _ban(self, logits: Logits, sequence: Sequence[int]) -> None:
        banned = self._bad_words.banned_after(sequence)
        if banned:
            logits[banned] = -np.inf
        # As upstream, min_tokens holds back end_id only: a stop word still ends the output.
        if self._request.end_id >= 0 and len(sequence) - len(self._request.prompt) < self._request.min_tokens:
            logits[self._request.end_id] = -np.inf

    def _penalize(self, logits: Logits, counts: NDArray[np.int64]) -> None:
        """Penalties on every id seen in prompt or output, as upstream."""
        seen = np.flatnonzero(counts)
        values = logits[seen]
        penalty = np.float32(self._sampling.repetition_penalty)
        values = np.where(values < 0, values * penalty, values / penalty)
        values -= np.float32(self._sampling.presence_penalty)
        values -= np.float32(self._sampling.frequency_penalty) * counts[seen].astype(np.float32)
        logits[seen] = values

    def _draw(self, logits: Logits) -> int:
        candidates: NDArray[np.intp] | None = None
        top_k = self._sampling.top_k
        if 0 < top_k < logits.size:
            candidates = np.argpartition(logits, logits.size - top_k)[-top_k:]
            candidates.sort()  # the order of a partition is not defined; a seed must always mean the same draw
            logits = logits[candidates]
        weights = np.exp(logits - logits.max())
        if self._sampling.top_p is not None and self._sampling.top_p < 1:
            nucleus = _nucleus(weights, self._sampling.top_p)
            weights = weights[nucleus]
            candidates = nucleus if candidates is None else candidates[nucleus]
        cumulative = np.cumsum(weights, dtype=np.float64)
        index = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))
        index = min(index, weights.size - 1)
        return index if candidates is None else int(candidates[index])


def _has_penalties(request: GenerationRequest) -> bool:
    sampling = request.sampling
    return (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) != (1.0, 0.0, 0.0)


def _nucleus(weights: NDArray[np.float32], top_p: float) -> NDArray[np.intp]:
    """Indices of the fewest largest weights that hold `top_p` of the total, in descending order."""
    total = float(weights.sum(dtype=np.float64))
    # Weights below this floor sum up to less than 1 - top_p, so all of the nucleus lies above it: far fewer to sort.
    floor = total * (1 - top_p) / weights.size
    above = np.flatnonzero(weights >= floor)
    order = above[np.argsort(-weights[above], kind="stable")]
    cumulative = np.cumsum(weights[order], dtype=np.float64)
    count = int(np.searchsorted(cumulative, top_p * total, side="left")) + 1
    return order[:count]


def _log_prob(logits: Logits, token: int) -> float:
    largest = logits.max()
    return float(logits[token] - largest - np.log(np.exp(logits - largest).sum(dtype=np.float64)))
