"""Bank accounts and national ids that have letters in them; all are found by a run of digits that each of them has."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from datasets.pipeline.pii import checks
from datasets.pipeline.pii.findings import Hit
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.runs import UPPER, Runs
from datasets.pipeline.pii.segments import Positions, byte_set
from datasets.pipeline.pii.surroundings import begins, ends

_IBAN = re.compile(rb"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}")
_IBAN_HEAD = np.zeros((256, 256), np.bool_)
for _country in checks.IBAN_LENGTHS:
    _IBAN_HEAD[ord(_country[0]), ord(_country[1])] = True

_NINO = re.compile(rb"[A-Z]{2}(?:[0-9]{6}| [0-9]{2} [0-9]{2} [0-9]{2} )[A-D]")
_NIE = re.compile(rb"[XYZ]-?[0-9]{7}-?[A-Z]")
_DNI = re.compile(rb"[0-9]{8}-?[A-Z]")
_FISCALE = re.compile(rb"[A-Z]{6}[0-9]{2}[A-Z][0-9]{2}[A-Z][0-9]{3}[A-Z]")
_UPPER_OR_HYPHEN = UPPER | byte_set(b"-")
_NIE_HEAD = byte_set(b"XYZ-")
_SPACE = 32


def find_identifiers(runs: Runs, kinds: frozenset[Kind]) -> Iterator[Hit]:
    if len(runs.starts) == 0:
        return
    at = runs.segment.at
    behind = np.flatnonzero(UPPER[runs.before])  # a letter
    behind = behind[UPPER[at(runs.starts[behind] - 2)]]
    starts, lengths = runs.starts[behind], runs.lengths[behind]
    if Kind.IBAN in kinds:
        yield from _ibans(runs, starts[_IBAN_HEAD[at(starts - 2), at(starts - 1)] & (lengths >= 2)] - 2)
    if Kind.NINO in kinds:
        yield from _matches(runs, starts[lengths == 6] - 2, _NINO, Kind.NINO, checks.nino)
        pairs = np.flatnonzero((runs.before == _SPACE) & (runs.lengths == 2))
        spaced = runs.starts[pairs[runs.after[pairs] == _SPACE]]
        spaced = spaced[UPPER[at(spaced - 2)] & UPPER[at(spaced - 3)]]
        yield from _matches(runs, spaced - 3, _NINO, Kind.NINO, checks.nino)
    if Kind.DNI in kinds:
        eight = np.flatnonzero(runs.lengths == 8)
        yield from _matches(runs, runs.starts[eight[_UPPER_OR_HYPHEN[runs.after[eight]]]], _DNI, Kind.DNI, checks.dni)
    if Kind.NIE in kinds:
        seven = np.flatnonzero(runs.lengths == 7)
        seven = seven[_NIE_HEAD[runs.before[seven]] & _UPPER_OR_HYPHEN[runs.after[seven]]]
        heads = runs.starts[seven] - 1 - (runs.before[seven] == ord("-"))
        yield from _matches(runs, heads, _NIE, Kind.NIE, checks.nie)
    if Kind.CODICE_FISCALE in kinds:
        two = starts[(lengths == 2) & (runs.gaps[behind] == 1)]
        yield from _matches(runs, two - 6, _FISCALE, Kind.CODICE_FISCALE, checks.codice_fiscale)


def _matches(
    runs: Runs, starts: Positions, pattern: re.Pattern[bytes], kind: Kind, check: checks.Check
) -> Iterator[Hit]:
    data = runs.segment.data
    for start in starts.tolist():
        match = pattern.match(data, start) if start >= 0 else None
        if match and _begins(data, start) and ends(data, match.end()) and check(_compact(match[0])):
            yield Hit(start, match.end(), kind)


def _ibans(runs: Runs, starts: Positions) -> Iterator[Hit]:
    data = runs.segment.data
    for start in starts.tolist():
        match = _IBAN.match(data, start)
        if match is None or not _begins(data, start):
            continue
        length = checks.IBAN_LENGTHS[data[start : start + 2].decode()]
        end = _end_of(match[0], length)
        if end and ends(data, start + end) and checks.iban(_compact(match[0][:end])):
            yield Hit(start, start + end, Kind.IBAN)


def _end_of(text: bytes, length: int) -> int:
    """Where so many letters and digits end, spaces aside; 0 where there are fewer."""
    for end in range(length, len(text) + 1):
        if end - text.count(b" ", 0, end) == length:
            return end
    return 0


def _begins(data: bytes, start: int) -> bool:
    """Whether it begins here, and is neither the fraction of a number nor the end of a longer code."""
    return begins(data, start) and not (
        data[start - 1 : start] in (b".", b"-") and data[start - 2 : start - 1].isalnum()
    )


def _compact(text: bytes) -> str:
    return text.translate(None, delete=b" -").decode()
