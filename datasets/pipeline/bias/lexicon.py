"""The words of lexicon.json, as one expression that finds them all, and what each of them means."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("lexicon.json")
VALUES = ("positive", "negative", "toxic")
PLURAL = "(s)"


@dataclass(frozen=True)
class Lexicon:
    """`codes` says of each term, in lower case and with spaces for hyphens, what it is: numbers of `groups`, or after
    these of one of VALUES; none where it only looks like one. An old woman is a woman, too.

    `pattern` is for Rust's regex crate, which is linear in the text; a longer term goes before one that it begins with.
    """

    groups: tuple[tuple[str, str], ...]
    """(axis, group), those of an axis side by side."""
    codes: dict[str, tuple[int, ...]]
    pattern: str

    def code_of(self, value: str) -> int:
        return len(self.groups) + VALUES.index(value)


@functools.cache
def lexicon() -> Lexicon:
    content = json.loads(FILE.read_text())
    groups = [(axis, group) for axis, named in content["identity"].items() for group in named]
    codes: dict[str, tuple[int, ...]] = {}

    def enter(terms: Iterable[str], *code: int) -> None:
        for term in (each for given in terms for each in _forms(given)):
            assert term not in codes, f"{term} stands twice in {FILE.name}"
            codes[term] = code

    enter(content["neither"])
    for code, (axis, group) in enumerate(groups):
        enter(content["identity"][axis][group], code)
    genders = {term: code for term, code in codes.items() if code and groups[code[0]][0] == "gender"}
    for term in codes.keys() - genders.keys():
        codes[term] += genders.get(term.rpartition(" ")[2], ()) if codes[term] else ()
    for place, value in enumerate(VALUES):
        enter(content[value], len(groups) + place)
    longest_first = sorted(codes, key=lambda term: (-len(term), term))
    alternatives = "|".join(re.escape(term).replace("\\ ", "[ -]") for term in longest_first)
    return Lexicon(tuple(groups), codes, rf"(?i-u:\b(?:{alternatives})\b)")


def _forms(term: str) -> list[str]:
    stem = term.removesuffix(PLURAL)
    return [stem] if stem == term else [stem, f"{stem}s"]
