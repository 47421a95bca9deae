"""Bank accounts and national ids that have letters in them; all are found by a run of digits that each of them has."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from datasets.pipeline.pii import checks
from datasets.pipeline.pii.findings import Hit
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.runs import UPPER, Runs, byte_set
from datasets.pipeline.pii.segments import Positions
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
    at, starts, before = runs.segment.at, runs.starts, runs.before
    after_two = UPPER[before] & UPPER[at(starts - 2)]
    if Kind.IBAN in kinds:
        yield from _ibans(runs, starts[after_two & _IBAN_HEAD[at(starts - 2), before] & (runs.lengths >= 2)] - 2)
    if Kind.NINO in kinds:
        yield from _matches(runs, starts[after_two & (runs.lengths == 6)] - 2, _NINO, Kind.NINO, checks.nino)
        spaced = (
            (before == _SPACE)
            & (runs.lengths == 2)
            & (runs.after == _SPACE)
            & UPPER[at(starts - 2)]
            & UPPER[at(starts - 3)]
        )
        yield from _matches(runs, starts[spaced] - 3, _NINO, Kind.NINO, checks.nino)
    if Kind.DNI in kinds:
        eight = (runs.lengths == 8) & _UPPER_OR_HYPHEN[runs.after]
        yield from _matches(runs, starts[eight], _DNI, Kind.DNI, checks.dni)
    if Kind.NIE in kinds:
        seven = (runs.lengths == 7) & _NIE_HEAD[before] & _UPPER_OR_HYPHEN[runs.after]
        yield from _matches(runs, starts[seven] - 1 - (before[seven] == ord("-")), _NIE, Kind.NIE, checks.nie)
    if Kind.CODICE_FISCALE in kinds:
        two = after_two & (runs.lengths == 2) & (runs.gaps == 1)
        yield from _matches(runs, starts[two] - 6, _FISCALE, Kind.CODICE_FISCALE, checks.codice_fiscale)


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
