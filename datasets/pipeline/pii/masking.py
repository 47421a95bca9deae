"""Findings replaced by placeholders, so that code and JSON which could be parsed before still can be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from datasets.pipeline.pii.findings import Finding, Findings
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.placeholders import Placeholders

_QUOTES = frozenset((b'"', b"'", b"`"))


class Masked(NamedTuple):
    """A row's new text, and where in it the placeholders stand, in characters."""

    text: str
    places: list[tuple[int, int, Kind]]


def mask(texts: pa.Array | pa.ChunkedArray, findings: Findings, key: bytes) -> pa.Array | pa.ChunkedArray:
    """The same rows, in which each finding is replaced. Null stays null, and what has no finding stays as it is.

    Raises ValueError for a key of fewer than 16 bytes.
    """
    placeholders = Placeholders(key)
    if isinstance(texts, pa.Array) or not len(findings):
        return _masked(texts, findings, placeholders)
    chunks, first = [], 0
    for chunk in texts.chunks:
        chunks.append(_masked(chunk, findings.between(first, first + len(chunk)), placeholders))
        first += len(chunk)
    return pa.chunked_array(chunks, texts.type)


def _masked(texts: pa.Array, findings: Findings, placeholders: Placeholders) -> pa.Array:
    """All bytes are copied once, from one placeholder to the next."""
    if not len(findings):
        return texts
    rows = texts.cast(pa.large_string())
    offsets = np.frombuffer(rows.buffers()[1], np.int64)[rows.offset : rows.offset + len(rows) + 1]
    data = memoryview(rows.buffers()[2])
    pieces: list[memoryview | bytes] = []
    growth = np.zeros(len(rows) + 1, np.int64)
    done = int(offsets[0])
    for row, found in groupby(findings, lambda one: one.row):
        begin, end = offsets[row : row + 2].tolist()
        text = bytes(data[begin:end])
        for start, stop, new in _replaced(text, found, placeholders):
            pieces += (data[done : begin + start], new)
            growth[row + 1] += len(new) - (stop - start)
            done = begin + stop
    pieces.append(data[done : int(offsets[-1])])
    buffers = [_validity(rows), pa.py_buffer(offsets - offsets[0] + np.cumsum(growth)), pa.py_buffer(b"".join(pieces))]
    return pa.Array.from_buffers(rows.type, len(rows), buffers).cast(texts.type)


def _validity(rows: pa.Array) -> pa.Buffer | None:
    if not rows.null_count:
        return None
    return pa.py_buffer(np.packbits(rows.is_valid().to_numpy(zero_copy_only=False), bitorder="little"))


def _replaced(text: bytes, findings: Iterable[Finding], placeholders: Placeholders) -> Iterator[tuple[int, int, bytes]]:
    """The spans of a row in bytes, and what comes in the place of each."""
    characters = None if text.isascii() else text.decode()
    done = last = 0  # the same place, in characters and in bytes
    for _, start, end, kind in findings:
        first, value = start, text[start:end]
        if characters is not None:
            first = last + len(characters[done:start].encode())
            value = characters[start:end].encode()
        done, last = end, first + len(value)
        quote = text[first - 1 : first]
        is_quoted = quote in _QUOTES and text[last : last + 1] == quote
        yield first, last, "".join(_replacement(value.decode(), kind, is_quoted, placeholders)).encode()


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
    _, start, end, kind = finding
    quote = text[start - 1 : start].encode()
    is_quoted = quote in _QUOTES and text[end : end + 1].encode() == quote
    return _replacement(text[start:end], kind, is_quoted, placeholders)


def _replacement(value: str, kind: Kind, is_quoted: bool, placeholders: Placeholders) -> tuple[str, str, str]:
    bare = value.lstrip("+")
    sign = value[: len(value) - len(bare)]
    if not is_quoted and bare.isascii() and bare.isdigit():
        return sign, placeholders.number(kind, value), ""
    if kind is Kind.PHONE:
        opened = "(" if bare.startswith("(") else ""
        return sign + opened, placeholders.word(kind, value), ")" if opened else ""
    return "", placeholders.word(kind, value), ""
