"""Numbers that are told by their shape: cards, and the national ids that consist of digits.

A shape says how many digits stand together, what separates them, and what has to be true of them all. A number that is
too common for its check digit to tell (nine bare digits are a BSN by chance in one case of eleven) needs a word
before it that names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from datasets.pipeline.pii import checks
from datasets.pipeline.pii.findings import Hit
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.runs import Runs
from datasets.pipeline.pii.surroundings import before, begins, ends

CONTEXT_BYTES = 40


@dataclass(frozen=True)
class Shape:
    kind: Kind
    lengths: tuple[int, ...]
    separators: bytes
    check: checks.Check
    context: re.Pattern[bytes] | None = None


def named(words: str) -> re.Pattern[bytes]:
    """One of the words, whatever its case, also as a part of an identifier in camel or snake case."""
    begin = rb"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))"
    return re.compile(begin + rb"(?i:%s)(?![a-z])(?!(?<=[A-Z])[A-Z])" % words.encode())


_CARD = named(r"card|visa|mastercard|amex|maestro|unionpay|pan|cc|credit")
_SSN = named(r"ssn|social[ _-]?security|soc[ _-]?sec")
_STEUER = named(r"steuer[ _-]?id|steuer\w*nummer|steueridnr|idnr|tin|tax[ _-]?id")
_AADHAAR = named(r"aadhaar|aadhar|uidai|uid")
_BSN = named(r"bsn|burgerservicenummer|sofi(?:nummer)?")
_CPF = named(r"cpf")

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


def find_numbers(runs: Runs, kinds: frozenset[Kind]) -> Iterator[Hit]:
    for shape in SHAPES:
        if shape.kind in kinds:
            yield from _shaped(runs, shape)


def _shaped(runs: Runs, shape: Shape) -> Iterator[Hit]:
    data = runs.segment.data
    first = runs.shaped(shape.lengths, shape.separators)
    starts, stops = runs.starts[first], runs.ends[first + len(shape.lengths) - 1]
    for start, end in zip(starts.tolist(), stops.tolist(), strict=True):
        if not alone(data, start, end) or not _even(data[start:end], shape):
            continue
        if shape.context is not None and not shape.context.search(before(data, start, CONTEXT_BYTES)):
            continue
        if shape.check(digits(data[start:end])):
            yield Hit(start, end, shape.kind)


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
    spaced = b" " in data[start:end]
    if spaced and previous == b" " and earlier.isdigit():
        return False
    following = data[end : end + 1]
    return not (data[end + 1 : end + 2].isdigit() and following in (b".-:/ " if spaced else b".-:/"))
