"""Stop strings: cuts an answer exactly before the first of them, however the text arrives in pieces.

Knows text only. Characters that may turn out to be the beginning of a stop string are held back until that is decided.
"""

from __future__ import annotations


class StopMatcher:
    """Watches one answer. `feed()` text until `matched` is set, then nothing more; `finish()` gives what was held back.

    The string that is complete first wins; of several complete at the same character, the longest.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Text that can be shown now. Sets `matched` when a stop string is complete."""
        if not self._stops:
            return text
        text = self._held + text
        found = [(start + len(stop), start, stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            _, start, self.matched = min(found)
            self._held = ""
            return text[:start]
        shown = len(text) - self._length_to_hold(text)
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """What was held back, once no more text comes. "" after a match."""
        held, self._held = self._held, ""
        return held

    def _length_to_hold(self, text: str) -> int:
        """Length of the longest end of `text` that some stop string begins with."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
