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
from datasets.pipeline.pii.runs import Runs
from datasets.pipeline.pii.segments import Positions, Segment, byte_set
from datasets.pipeline.pii.surroundings import BACKSLASH, WORDS, heads, may_mention, mentions

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
_HEADS = heads(_CONTEXT)


def find_phones(runs: Runs) -> Iterator[Hit]:
    if len(runs.starts) == 0:
        return
    data, at = runs.segment.data, runs.segment.at
    signs = runs.starts[runs.before == ord("+")] - 1
    for start in signs[~_is_within_word(runs.segment, signs)].tolist():
        if end := _international(data, start):
            yield Hit(start, end, Kind.PHONE)
    starts = np.union1d(_groups(runs), _three_three_four(runs))
    opened = starts - (at(starts - 1) == ord("("))
    beside = may_mention(runs.segment, opened, _HEADS)
    some = beside | np.isin(starts, _may_be_north_american(runs))
    for start, may_be_beside in zip(opened[some].tolist(), beside[some].tolist(), strict=True):
        if end := _north_american(data, start) or (may_be_beside and _beside_a_word(data, start)):
            yield Hit(start, end, Kind.PHONE)


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
    return match.end() if is_valid(match[0].decode(), "US") else 0


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
    first = np.flatnonzero(close | (runs.lengths >= FEWEST_DIGITS))
    is_inner = np.concatenate([[False], close[:-1]])[first]
    first = first[~is_inner & (runs.lengths[first] <= MOST_DIGITS) & (runs.before[first] != ord("+"))]
    first = first[~_is_within_word(runs.segment, runs.starts[first])]
    reached, places, last = runs.lengths[first].astype(np.int64), np.arange(len(first)), first
    for _ in range(1, MOST_GROUPS):
        follows = close[last]
        places, last = places[follows], last[follows] + 1
        reached[places] += runs.lengths[last]
    return runs.starts[first[reached >= FEWEST_DIGITS]]


def _three_three_four(runs: Runs) -> np.ndarray:
    """Where the digits of a North American number may begin, whatever number stands before."""
    area = _three_four(runs) - 1
    return runs.starts[area[(runs.lengths[area] == 3) & (runs.gaps[area] <= 2)]]


def _may_be_north_american(runs: Runs) -> np.ndarray:
    """Where _NORTH_AMERICAN may begin: at an area of three digits, at a 1 before it, or at both in one."""
    area = _three_four(runs) - 1
    alone = area[area >= 1] - 1
    return np.concatenate([runs.starts[area], runs.starts[alone[runs.lengths[alone] == 1]]])


def _three_four(runs: Runs) -> np.ndarray:
    """Runs of three digits behind some other one, one byte before a run of four."""
    four = np.flatnonzero(runs.lengths == 4)
    three = four[four >= 2] - 1
    return three[(runs.lengths[three] == 3) & (runs.gaps[three] == 1)]


def _is_within_word(segment: Segment, starts: Positions) -> np.ndarray:
    """Whether a letter or a digit stands before, with which no escape ends."""
    return WORDS[segment.at(starts - 1)] & (segment.at(starts - 2) != BACKSLASH)


def _valid_length(text: bytes) -> int:
    """How much of the text is a number: not what follows after a space, where only without it there is one."""
    for _ in range(MOST_GROUPS):
        number = digits(text)
        if len(number) < FEWEST_DIGITS or _DECIMAL.search(text):
            return 0
        if len(number) <= MOST_DIGITS and not _FICTION.fullmatch(number) and is_valid(text.decode(), None):
            return len(text)
        text = _LAST_GROUP.sub(b"", text)
    return 0


@lru_cache(maxsize=10_000)
def is_valid(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False
