"""Numbers that are told by their shape: cards, and the national ids that consist of digits.

A shape says how many digits stand together, what separates them, and what has to be true of them all. A number that is
too common for its check digit to tell (nine bare digits are a BSN by chance in one case of eleven) needs a word
before it that names it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from datasets.pipeline.pii import checks
from datasets.pipeline.pii.findings import Hit
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.runs import SEPARATES, Runs
from datasets.pipeline.pii.segments import byte_set
from datasets.pipeline.pii.surroundings import begins, ends, mentions


@dataclass(frozen=True)
class Shape:
    kind: Kind
    lengths: tuple[int, ...]
    separators: bytes
    check: checks.Check
    context: frozenset[bytes] = frozenset()


_CARD = frozenset(b"card cards cardnumber creditcard visa mastercard amex maestro unionpay pan cc credit".split())
_SSN = frozenset(b"ssn social".split())
_STEUER = frozenset(b"steuer steuerid idnr steueridnr steueridentifikationsnummer tin tax taxid".split())
_AADHAAR = frozenset(b"aadhaar aadhar uidai".split())
_BSN = frozenset(b"bsn burgerservicenummer sofi sofinummer".split())
_CPF = frozenset({b"cpf"})

SHAPES = (
    *(Shape(Kind.PAYMENT_CARD, (length,), b"", checks.payment_card) for length in (14, 15, 16)),
    *(Shape(Kind.PAYMENT_CARD, (length,), b"", checks.payment_card, _CARD) for length in (13, 17, 18, 19)),
    Shape(Kind.PAYMENT_CARD, (4, 4, 4, 4), b" -", checks.payment_card),
    Shape(Kind.PAYMENT_CARD, (4, 4, 4, 4, 3), b" -", checks.payment_card),
    Shape(Kind.PAYMENT_CARD, (4, 6, 5), b" -", checks.payment_card),
    Shape(Kind.PAYMENT_CARD, (4, 6, 4), b" -", checks.payment_card),
    Shape(Kind.SSN, (3, 2, 4), b"-", checks.ssn),
    Shape(Kind.SSN, (3, 2, 4), b" ", checks.ssn, _SSN),
    Shape(Kind.SSN, (9,), b"", checks.ssn, _SSN),
    Shape(Kind.STEUER_ID, (2, 3, 3, 3), b" ", checks.steuer_id),
    Shape(Kind.STEUER_ID, (11,), b"", checks.steuer_id, _STEUER),
    Shape(Kind.INSEE, (15,), b"", checks.insee),
    Shape(Kind.INSEE, (13, 2), b" ", checks.insee),
    Shape(Kind.INSEE, (1, 2, 2, 2, 3, 3, 2), b" ", checks.insee),
    Shape(Kind.AADHAAR, (4, 4, 4), b" -", checks.aadhaar),
    Shape(Kind.AADHAAR, (12,), b"", checks.aadhaar, _AADHAAR),
    Shape(Kind.BSN, (9,), b"", checks.bsn, _BSN),
    Shape(Kind.BSN, (4, 2, 3), b". ", checks.bsn, _BSN),
    Shape(Kind.CPF, (3, 3, 3, 2), b".-", checks.cpf),
    Shape(Kind.CPF, (11,), b"", checks.cpf, _CPF),
)


_SETS = {shape.separators: byte_set(shape.separators) for shape in SHAPES}
_BARE: dict[int, list[Shape]] = defaultdict(list)  # by the number of digits
_GROUPED = [shape for shape in SHAPES if len(shape.lengths) > 1]
for _shape in SHAPES:
    if len(_shape.lengths) == 1:
        _BARE[_shape.lengths[0]].append(_shape)
_IS_BARE = byte_set(bytes(_BARE))

assert not any(np.any(each & ~SEPARATES) for each in _SETS.values())


def find_numbers(runs: Runs, kinds: frozenset[Kind]) -> Iterator[Hit]:
    data = runs.segment.data
    for start, end, shape in chain(_bare(runs), _grouped(runs)):
        if shape.kind in kinds and _is(shape, data, start, end):
            yield Hit(start, end, shape.kind)


def _bare(runs: Runs) -> Iterator[tuple[int, int, Shape]]:
    """Where such shapes may stand. So do those below."""
    some = np.flatnonzero(_IS_BARE[runs.lengths])
    some = some[runs.may_stand_alone(some, some)]
    for start, end in zip(runs.starts[some].tolist(), runs.ends[some].tolist(), strict=True):
        for shape in _BARE[end - start]:
            yield start, end, shape


def _grouped(runs: Runs) -> Iterator[tuple[int, int, Shape]]:
    for shape in _GROUPED:
        first = runs.shaped(shape.lengths, _SETS[shape.separators])
        if len(first):
            last = first + (len(shape.lengths) - 1)
            may = runs.may_stand_alone(first, last)
            for start, end in zip(runs.starts[first[may]].tolist(), runs.ends[last[may]].tolist(), strict=True):
                yield start, end, shape


def _is(shape: Shape, data: bytes, start: int, end: int) -> bool:
    if not alone(data, start, end) or (shape.separators and not _even(data[start:end], shape)):
        return False
    return shape.check(digits(data[start:end])) and (not shape.context or mentions(data, start, shape.context))


def digits(text: bytes) -> str:
    return text.translate(None, delete=b" .-/()+").decode()


def _even(text: bytes, shape: Shape) -> bool:
    """The same separator throughout; a CPF has two points and a hyphen."""
    between = text.translate(None, delete=b"0123456789")
    return between == b"..-" if shape.kind is Kind.CPF and between else len(set(between)) <= 1


def alone(data: bytes, start: int, end: int) -> bool:
    """Whether the number is no part of a longer one, of a version, of a decimal fraction, or of a word."""
    if not begins(data, start) or not ends(data, end):
        return False
    previous, earlier = data[start - 1 : start], data[start - 2 : start - 1]
    if start >= 2 and ((previous in b".-/+" and earlier.isalnum()) or (previous == b":" and earlier.isdigit())):
        return False
    if previous == b")" and data[start] in b"(+":  # what stands before ends with a bracket, or did before it was masked
        return False
    spaced = b" " in data[start:end]
    if spaced and previous == b" " and earlier.isdigit() and data[start : start + 1] != b"(":
        return False
    following = data[end : end + 1]
    return not (data[end + 1 : end + 2].isdigit() and following in (b".-:/ " if spaced else b".-:/"))
