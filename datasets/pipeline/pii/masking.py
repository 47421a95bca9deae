"""Findings replaced by placeholders, so that code and JSON which could be parsed before still can be."""

from __future__ import annotations

import re
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.pii.findings import Finding, Findings
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.placeholders import Placeholders

_BARE_NUMBER = re.compile(r"[0-9]+")
_QUOTES = frozenset("\"'`")


class Masked(NamedTuple):
    """A row's new text, and where in it the placeholders stand, in characters."""

    text: str
    places: list[tuple[int, int, Kind]]


def mask(texts: pa.Array | pa.ChunkedArray, findings: Findings, key: bytes) -> pa.Array | pa.ChunkedArray:
    """The same rows, in which each finding is replaced. Null stays null, and what has no finding stays as it is.

    Raises ValueError for a key of fewer than 16 bytes.
    """
    placeholders = Placeholders(key)
    masked = [
        mask_row(texts[row].as_py(), list(found), placeholders).text
        for row, found in groupby(findings, lambda one: one.row)
    ]
    if not masked:
        return texts
    changed = np.zeros(len(texts), np.bool_)
    changed[findings.rows()] = True
    return pc.replace_with_mask(texts, pa.array(changed), pa.array(masked, texts.type))


def mask_row(text: str, findings: list[Finding], placeholders: Placeholders) -> Masked:
    pieces: list[str] = []
    places: list[tuple[int, int, Kind]] = []
    done = length = 0
    for finding in findings:
        head, new, tail = replacement(text, finding, placeholders)
        kept = text[done : finding.start] + head
        pieces += (kept, new, tail)
        places.append((length + len(kept), length + len(kept) + len(new), finding.kind))
        length += len(kept) + len(new) + len(tail)
        done = finding.end
    return Masked("".join((*pieces, text[done:])), places)


def replacement(text: str, finding: Finding, placeholders: Placeholders) -> tuple[str, str, str]:
    """What stays before, the placeholder, and what stays behind.

    Digits alone may be a number of JSON or of a program: unless quotes enclose them, they become a number. All else can be a
    word: where it was no string, it was an expression. Its sign or its brackets stay, for what stands before may need them.
    """
    value = text[finding.start : finding.end]
    bare = value.lstrip("+")
    sign = value[: len(value) - len(bare)]
    if _BARE_NUMBER.fullmatch(bare) and not _is_quoted(text, finding):
        return sign, placeholders.number(finding.kind, value), ""
    if finding.kind is Kind.PHONE:
        opened = "(" if bare.startswith("(") else ""
        return sign + opened, placeholders.word(finding.kind, value), ")" if opened else ""
    return "", placeholders.word(finding.kind, value), ""


def _is_quoted(text: str, finding: Finding) -> bool:
    quote = text[finding.start - 1 : finding.start]
    return quote in _QUOTES and text[finding.end : finding.end + 1] == quote
