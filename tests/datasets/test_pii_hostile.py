"""Text that is made to take long: each pattern sees a bounded window, and there is one for so many bytes at most."""

from __future__ import annotations

import re
import sys
from re import _parser as parser  # type: ignore[attr-defined]
from types import FrameType
from typing import Any

import pyarrow as pa
import pytest

from datasets.pipeline.pii import assignments, find, identifiers, networks, phones, tokens

SIZE = 30_000
MOST_CALLS_A_BYTE = 8
HOSTILE = {
    "at signs": "@",
    "digits": "4",
    "a.a.a.a@": "a.a.a.a@",
    "addresses of addresses": "a@a.",
    "long local parts": "a" * 63 + "@",
    "long domains": "a@" + "a." * 100,
    "digits and spaces": "4 ",
    "digits and points": "1.",
    "card after card": "4111 1111 1111 1112 ",
    "plus and digits": "+1 ",
    "phones without end": "phone 1 2 3 4 5 6 7 8 9 ",
    "colons": ":",
    "addresses of six": "2001:",
    "scheme after scheme": "://a:",
    "frames": "-----BEGIN PRIVATE KEY-----",
    "frames with lines": "-----BEGIN RSA PRIVATE KEY-----\nabcdefghijklmnopqrst\n",
    "names": "password",
    "assignments": "password='",
    "assignments of assignments": "api_key=a1b2c3d4e5f6a7b8",
    "tokens of tokens": "-eyJ",
    "dots of tokens": ".eyJaaaaaaaa",
    "bearers": "Bearer ",
    "humps": "password='a" + "A" * 380 + "1' ",
    "prefixes": "sk-",
    "accounts": "DE89 ",
    "backslashes": "\\",
    "escapes": "\\n",
    "line feeds": "\n",
}


def calls(text: str) -> int:
    """How many functions are called, those of C included, while the text is searched."""
    count = 0

    def counted(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    rows = pa.array([text])
    sys.setprofile(counted)
    try:
        find(rows)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_twice_the_text_takes_twice_the_calls(unit: str) -> None:
    once = unit * (SIZE // len(unit))
    single, double = calls(once), calls(once * 2)
    assert double <= 2.2 * single + 500
    assert double <= 2 * SIZE * MOST_CALLS_A_BYTE


def test_a_megabyte_of_each_ends() -> None:
    rows = pa.array(
        [unit * (1_000_000 // len(unit)) for unit in ("@", "4", "a.a.a.a@", ":", "-----BEGIN PRIVATE KEY-----")]
    )
    assert len(find(rows)) == 0


# What is matched against the text itself, at a place that was found before. (Others see what these have matched.)
AGAINST_TEXT = [
    *(token.pattern for token in tokens.TOKENS),
    *(
        assignments._NAMED,
        assignments._URL,
        assignments._BEGIN,
    ),
    *(identifiers._IBAN, identifiers._NINO, identifiers._NIE, identifiers._DNI, identifiers._FISCALE),
    *(networks._DOMAIN, networks._IPV6, phones._INTERNATIONAL, phones._NATIONAL, phones._NORTH_AMERICAN),
]


@pytest.mark.parametrize("pattern", AGAINST_TEXT, ids=[pattern.pattern[:30].decode() for pattern in AGAINST_TEXT])
def test_a_pattern_sees_a_bounded_window(pattern: re.Pattern[bytes]) -> None:
    longest = parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE).getwidth()[1]
    assert longest < 15_000
