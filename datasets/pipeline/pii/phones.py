"""Telephone numbers: international ones by themselves, national ones in the form that only they have, or beside a word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import phonenumbers

from datasets.pipeline.pii.findings import Hit
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.numbers import CONTEXT_BYTES, alone, digits, named
from datasets.pipeline.pii.runs import Runs, byte_set
from datasets.pipeline.pii.surroundings import WORD, before

# Where a number without a country code may be from; a word beside it says that it is one.
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "IN", "BR", "CH", "AT", "AU", "PL", "SE", "JP", "CN")
FEWEST_DIGITS, MOST_DIGITS = 7, 15
MOST_GROUPS = 7

_CONTEXT = named(
    r"(?:tele)?phone(?:[ _-]?(?:number|no|num|nr))?|tel|cell(?:phone)?|mobile(?:[ _-]?(?:number|no|num|nr))?|mob|fax|call|dial|sms|"
    r"text me|whatsapp|signal|reach (?:me|us|him|her|them)|ring|contact|hotline|handy|telefon(?:nummer)?|telefono|telefone|"
    r"t(?:e|é)l(?:e|é)phone|t(?:e|é)l|m(?:o|ó)vil|tel(?:e|é)fono|celular|cellulare|rufnummer|mobil|portable|telefoon"
)
_INTERNATIONAL = re.compile(rb"\+[1-9](?:[0-9]|[ .\-/()]{1,2}(?=[0-9(])){6,24}")
_NATIONAL = re.compile(rb"\(?[0-9](?:[0-9]|[ .\-/()]{1,2}(?=[0-9(])){6,24}")
_NORTH_AMERICAN = re.compile(rb"(?:\+?1[ .-]?)?(?:\([2-9]\d\d\)[ -]?|[2-9]\d\d-)[2-9]\d\d-\d{4}")
_FICTION = re.compile(r"1?\d{3}55501\d\d")  # set aside for films and examples
_LAST_GROUP = re.compile(rb"[ .\-/()]+[0-9]+$")
_BETWEEN = byte_set(b" .-/()")
_AFTER_WORD = byte_set(bytes(WORD))


def find_phones(runs: Runs) -> Iterator[Hit]:
    if len(runs.starts) == 0:
        return
    data = runs.segment.data
    plus = np.flatnonzero((runs.before == ord("+")) & ~_AFTER_WORD[runs.segment.at(runs.starts - 2)])
    for start in (runs.starts[plus] - 1).tolist():
        if (match := _INTERNATIONAL.match(data, start)) and (end := _end_of_valid(match[0], None)):
            yield Hit(start, start + end, Kind.PHONE)
    for start in _groups(runs).tolist():
        opened = start - (data[start - 1 : start] == b"(")
        if (match := _NORTH_AMERICAN.match(data, opened)) and alone(data, opened, match.end()):
            if not _FICTION.fullmatch(digits(match[0])) and _is_valid(match[0].decode(), "US"):
                yield Hit(opened, match.end(), Kind.PHONE)
        elif _CONTEXT.search(before(data, opened, CONTEXT_BYTES)) and (match := _NATIONAL.match(data, opened)):
            end = _end_of_valid(match[0], REGIONS)
            if end and alone(data, opened, opened + end):
                yield Hit(opened, opened + end, Kind.PHONE)


def _groups(runs: Runs) -> np.ndarray:
    """Where runs begin that with those close behind have as many digits as a telephone number."""
    close = (runs.gaps <= 2) & _BETWEEN[runs.after]
    total = runs.lengths.astype(np.int64)
    reached, follows = total.copy(), np.ones(len(total), np.bool_)
    for distance in range(1, min(MOST_GROUPS, len(total))):
        follows = follows[: len(total) - distance] & close[distance - 1 : len(total) - 1]
        reached[: len(follows)] += np.where(follows, total[distance:], 0)
    inner = np.concatenate([[False], close[:-1]])
    fits = (reached >= FEWEST_DIGITS) & (total <= MOST_DIGITS) & ~inner & (runs.before != ord("+"))
    word_before = _AFTER_WORD[runs.before] & (runs.segment.at(runs.starts - 2) != ord("\\"))
    return runs.starts[fits & ~word_before]


def _end_of_valid(text: bytes, regions: tuple[str, ...] | None) -> int:
    """How much of the text is a number: without what follows after a space, where that alone is none. 0: nothing of it."""
    for _ in range(MOST_GROUPS):
        text = text.rstrip(b" .-/(") if text.count(b"(") > text.count(b")") else text
        count = len(digits(text))
        if count < FEWEST_DIGITS:
            return 0
        if count <= MOST_DIGITS and not _FICTION.fullmatch(digits(text)):
            number = text.decode()
            if any(_is_valid(number, region) for region in regions or (None,)):
                return len(text)
        shorter = _LAST_GROUP.sub(b"", text)
        if shorter == text:
            return 0
        text = shorter
    return 0


@lru_cache(maxsize=100_000)
def _is_valid(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False
