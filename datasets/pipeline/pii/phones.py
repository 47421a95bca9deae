"""Telephone numbers: international ones by themselves, national ones in the form that only they have, or beside a word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import phonenumbers

from datasets.pipeline.pii.findings import Hit
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.numbers import alone, digits
from datasets.pipeline.pii.runs import Runs, byte_set
from datasets.pipeline.pii.surroundings import WORD, mentions

FEWEST_DIGITS, MOST_DIGITS = 7, 15  # ITU-T E.164
MOST_NATIONAL_DIGITS = 12  # with the prefix of a long-distance call
FEWEST_UNSEPARATED = 9  # an integer may have a sign, too
MOST_GROUPS = 7

_CONTEXT = frozenset(
    (
        "phone phones telephone phonenumber tel cell cellphone mobile mob fax call dial sms whatsapp reach ring hotline "
        "handy telefon telefonnummer rufnummer mobil telefono telefone teléfono téléphone tél móvil movil celular cellulare "
        "portable telefoon"
    )
    .encode()
    .split()
)
_INTERNATIONAL = re.compile(rb"\+[1-9](?:[0-9]|[ .\-/()]{1,2}(?=[0-9(])){6,24}")
_NATIONAL = re.compile(rb"\(?[0-9](?:[0-9]|[ .\-/()]{1,2}(?=[0-9(])){6,24}")
_NORTH_AMERICAN = re.compile(rb"(?:\+?1[ .-]?)?(?:\([2-9]\d\d\)[ -]?|[2-9]\d\d-)[2-9]\d\d-\d{4}")
_FICTION = re.compile(r"1?\d{3}55501\d\d")  # set aside for films and examples
_LAST_GROUP = re.compile(rb"[ (/][ .\-/()]?[0-9]+$")  # not the fraction of a number, nor the end of a date
_DATE = re.compile(rb"(?:19|20)[0-9]{2}[-/.][0-9]{1,2}[-/.]|[0-9]{1,2}[-/.][0-9]{1,2}[-/.](?:19|20)?[0-9]{2}$")
_DECIMAL = re.compile(rb"\.[0-9](?![0-9])|^[0-9]{1,3}(?:\.[0-9]{1,3}){3}$")  # or an address
_BETWEEN = byte_set(b" .-/()")
_AFTER_WORD = byte_set(bytes(WORD))


def find_phones(runs: Runs) -> Iterator[Hit]:
    if len(runs.starts) == 0:
        return
    data = runs.segment.data
    at, starts = runs.segment.at, runs.starts
    within_word = _AFTER_WORD[at(starts - 2)] & (at(starts - 3) != ord("\\"))  # what an escape ends with is none
    plus = np.flatnonzero((runs.before == ord("+")) & ~within_word)
    for start in (runs.starts[plus] - 1).tolist():
        if end := _international(data, start):
            yield Hit(start, end, Kind.PHONE)
    for start in np.union1d(_groups(runs), _three_three_four(runs)).tolist():
        opened = start - (data[start - 1 : start] == b"(")
        if end := _north_american(data, opened) or _beside_a_word(data, opened):
            yield Hit(opened, end, Kind.PHONE)


def _international(data: bytes, start: int) -> int:
    """Where the number ends; 0 where there is none. So it is of the two below."""
    match = _INTERNATIONAL.match(data, start)
    length = _valid_length(match[0]) if match else 0
    if match is None or not length or not alone(data, start, start + length):
        return 0
    if match[0][1:length].isdigit() and length - 1 < FEWEST_UNSEPARATED:
        return 0
    return start + length


def _north_american(data: bytes, start: int) -> int:
    match = _NORTH_AMERICAN.match(data, start)
    if match is None or not alone(data, start, match.end()) or _FICTION.fullmatch(digits(match[0])):
        return 0
    return match.end() if _is_valid(match[0].decode(), "US") else 0


def _beside_a_word(data: bytes, start: int) -> int:
    """The word says that it is one; which country's it is, and whether it is in use there, nobody says."""
    match = _NATIONAL.match(data, start) if mentions(data, start, _CONTEXT) else None
    if match is None or not alone(data, start, match.end()) or _DECIMAL.search(match[0]) or _DATE.match(match[0]):
        return 0
    number = digits(match[0])
    if not FEWEST_DIGITS <= len(number) <= MOST_NATIONAL_DIGITS or len(set(number)) == 1 or _FICTION.fullmatch(number):
        return 0
    return match.end() if match[0].count(b"(") == match[0].count(b")") else 0


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


def _three_three_four(runs: Runs) -> np.ndarray:
    """Where the digits of a North American number may begin, whatever number stands before."""
    count = max(0, len(runs.starts) - 2)
    area, exchange, line = (runs.lengths[place : place + count] for place in range(3))
    close = (runs.gaps[:count] <= 2) & (runs.gaps[1 : count + 1] == 1)
    return runs.starts[:count][(area == 3) & (exchange == 3) & (line == 4) & close]


def _valid_length(text: bytes) -> int:
    """How much of the text is a number: not what follows after a space, where only without it there is one."""
    for _ in range(MOST_GROUPS):
        number = digits(text)
        if len(number) < FEWEST_DIGITS or _DECIMAL.search(text):
            return 0
        if len(number) <= MOST_DIGITS and not _FICTION.fullmatch(number) and _is_valid(text.decode(), None):
            return len(text)
        text = _LAST_GROUP.sub(b"", text)
    return 0


@lru_cache(maxsize=10_000)
def _is_valid(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False
