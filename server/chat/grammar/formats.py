"""What the `format` of a string stands for, as regular expressions. Knows no JSON and no schemas.

Each derives only texts of its format, not always all of them: years have four digits, host names are short enough for
DNS, and addresses are written out in full.
"""

from __future__ import annotations

from functools import cache

from .expressions import Expression
from .regex import whole_expression

_YEAR = r"[1-9][0-9]{3}"
_LEAP_YEAR = r"([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)"
_DAY = (
    rf"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    rf"|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](\.[0-9]{{1,9}})?(Z|[+-]{_CLOCK})"

_N = r"[0-9]{1,6}"
_DAYS = rf"({_N}Y({_N}M({_N}D)?)?|{_N}M({_N}D)?|{_N}D)"
_HOURS = rf"T({_N}H({_N}M({_N}S)?)?|{_N}M({_N}S)?|{_N}S)"

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}"
_LABEL = r"[A-Za-z0-9]{1,20}(-[A-Za-z0-9]{1,20}){0,2}"
_DOMAIN = rf"({_LABEL}\.){{1,3}}[A-Za-z]{{2,20}}"
_HOST = rf"({_LABEL}\.){{0,3}}[A-Za-z][A-Za-z0-9]{{1,19}}"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PART_OF_URI = r"([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})"


def _uri(path: str, query: str, fragment: str) -> str:
    """With how many characters each of these parts has."""
    return (
        rf"[a-z][a-z0-9+.-]{{0,15}}://{_HOST}(:[1-9][0-9]{{0,3}})?"
        rf"(/{_PART_OF_URI}{path})?(\?({_PART_OF_URI}|\?){query})?(#({_PART_OF_URI}|\?){fragment})?"
    )


_PATTERNS = {
    "date": _DAY,
    "date-time": f"{_DAY}T{_TIME}",
    "duration": f"P({_DAYS}({_HOURS})?|{_HOURS}|{_N}W)",
    "email": rf"{_ATOM}(\.{_ATOM}){{0,2}}@{_DOMAIN}",
    "hostname": _HOST,
    "ipv4": rf"({_BYTE}\.){{3}}{_BYTE}",
    "ipv6": r"([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
    "time": _TIME,
    "uri": _uri("*", "*", "*"),
    "uuid": r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
}

# For schemas that limit the length, as most that do allow 1,000 characters and more.
_BOUNDED_PATTERNS = {**_PATTERNS, "uri": _uri("{0,150}", "{0,60}", "{0,30}")}

FORMATS = frozenset(_PATTERNS)


@cache
def format_expression(name: str, *, bounded: bool = False) -> Expression:
    """The texts of a format, one of FORMATS. None needs an escape inside a JSON string. `bounded`: none is endless."""
    return whole_expression((_BOUNDED_PATTERNS if bounded else _PATTERNS)[name])
