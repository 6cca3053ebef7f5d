"""The tokens that callers may show, from a file: whose each is and what it may do.

Follows changes of the file: `file_watch.py` has it look once a second. What the file holds is said in
`token_entries.py`; `python -m server.tokens` edits it. Knows no gRPC and no methods.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from typing_extensions import Self

from .errors import Unauthenticated
from .file_watch import stamp_of
from .token_entries import Caller as Caller
from .token_entries import TokenEntry, TokenFileError, read_entries

_HMAC_BLOCK_BYTES = 64
_WRITABLE_BY_OTHERS = 0o022

log = logging.getLogger(__name__)


class TokenFile:
    """The tokens that are good now. A token that was removed is good for no new call; what runs already goes on."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._stamp = stamp_of(path)
        self._told = ""
        self._verifiers = self._read()

    @classmethod
    def load(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Reads the file; `clock` gives the seconds since the epoch. Raises TokenFileError."""
        return cls(path, clock=clock)

    def caller_of(self, token: str) -> Caller:
        """Whose token it is. Raises Unauthenticated where it is not known or has expired.

        Every entry is compared, also after the right one: the time it takes tells nothing of what fits.
        """
        given = token.encode()
        found = None
        for verifier in self._verifiers:
            if hmac.compare_digest(verifier.hash_of(given), verifier.hash):
                found = verifier
        if found is None:
            raise Unauthenticated("the token is not known to this server")
        if self._clock() >= found.expires_seconds:
            raise Unauthenticated("the token has expired")
        return found.caller

    def reload_if_changed(self) -> None:
        """Reads the file anew where it changed. While it is broken or gone, the tokens of before stay good."""
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        try:
            self._verifiers = self._read()
        except TokenFileError as error:  # tried again at the next look: the disk may be back by then
            if str(error) != self._told:
                log.error("%s; the tokens of before stay good", error)
            self._told = str(error)
            return
        self._stamp, self._told = stamp, ""
        log.info("%s has changed and was read: %d tokens", self._path, len(self._verifiers))

    def _read(self) -> Sequence[_Verifier]:
        entries = read_entries(self._path)
        if not entries:
            log.warning("%s has no tokens, so nobody can call", self._path)
        if _others_can_write(self._path):
            log.warning("others can write to %s and let themselves in; 'chmod go-w' takes that away", self._path)
        return [_verifier(entry) for entry in entries]


class _Verifier(NamedTuple):
    """An entry made ready: hashing begins with its salt, and that part of it is done once, not for every call."""

    inner: hashlib._Hash
    outer: hashlib._Hash
    hash: bytes
    expires_seconds: float
    caller: Caller

    def hash_of(self, token: bytes) -> bytes:
        """HMAC-SHA256 of the token (RFC 2104): what `hmac.digest` gives, in half the time."""
        inner, outer = self.inner.copy(), self.outer.copy()
        inner.update(token)
        outer.update(inner.digest())
        return outer.digest()


def _verifier(entry: TokenEntry) -> _Verifier:
    key = entry.salt.ljust(_HMAC_BLOCK_BYTES, b"\0")
    return _Verifier(
        inner=hashlib.sha256(bytes(byte ^ 0x36 for byte in key)),
        outer=hashlib.sha256(bytes(byte ^ 0x5C for byte in key)),
        hash=entry.hash,
        expires_seconds=entry.expires.timestamp() if entry.expires else float("inf"),
        caller=entry.caller,
    )


def _others_can_write(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & _WRITABLE_BY_OTHERS)
    except OSError:  # gone just now; the next look at the file will say so
        return False


if __name__ == "__main__":
    from .token_command import main

    sys.exit(main(sys.argv[1:]))
