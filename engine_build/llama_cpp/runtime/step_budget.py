"""How many prompt tokens go into one step, so that steps stay short enough to notice a cancelled request.

Learns from the time that steps took; pure arithmetic. The split of a prompt into steps has no effect on what is
generated: llama.cpp on a CPU gives the same logits bit for bit (a test holds it to that).
"""

STEP_SECONDS = 0.07
_SMALLEST_STEP = 8
_SMALLEST_SHARE = 4


class StepBudget:
    """Aims at steps of `STEP_SECONDS`.

    Where the running sequences alone take longer than that, prompts get about as much time again, so that reading a
    prompt does not come to a halt on a large model.
    """

    def __init__(self, most_prompt_tokens: int) -> None:
        self._most_prompt_tokens = most_prompt_tokens
        self._rows = float(min(16, most_prompt_tokens))
        self._decode_seconds = 0.0

    def prompt_tokens(self, running: int) -> int:
        """How many prompt tokens to compute beside `running` sequences."""
        return max(
            min(int(self._rows) - running, self._most_prompt_tokens), min(_SMALLEST_SHARE, self._most_prompt_tokens)
        )

    def record(self, *, running: int, prompt_tokens: int, seconds: float) -> None:
        """Learn from one step, all of it: its rows may have been computed in several goes, one for each adapter."""
        if not prompt_tokens:
            self._decode_seconds = seconds
            return
        goal = STEP_SECONDS if self._decode_seconds < STEP_SECONDS else 2 * self._decode_seconds
        if running + prompt_tokens < int(self._rows) and seconds < goal:
            return  # a short step says little about a full one
        factor = min(max(goal / max(seconds, 1e-6), 0.5), 1.5)
        self._rows = min(max(self._rows * factor, _SMALLEST_STEP), self._most_prompt_tokens + running)
