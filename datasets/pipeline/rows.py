"""What flows between the steps: records as parsed, rows as typed Arrow tables, and rejections."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import pyarrow as pa

MAX_LINE_BYTES = 1_000_000
MAX_EXCERPT_BYTES = 300
BATCH_ROWS = 20_000  # a megabyte of one-letter lines is half a million rows

# Rows as the trainer reads them. A row has prompt and completion, or text, or messages (a JSON list of {role, content});
# source is a path inside a zip; line counts from 1.
ROWS = pa.schema(
    [
        pa.field("prompt", pa.string()),
        pa.field("completion", pa.string()),
        pa.field("text", pa.string()),
        pa.field("messages", pa.string()),
        pa.field("group", pa.string()),
        pa.field("source", pa.string()),
        pa.field("line", pa.int64(), nullable=False),
    ]
)
CONTENT = ("prompt", "completion", "text", "messages")

REJECTIONS = pa.schema(
    [
        pa.field("line", pa.int64(), nullable=False),
        pa.field("field", pa.string()),
        pa.field("step", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("excerpt", pa.string(), nullable=False),
        pa.field("source", pa.string()),
    ]
)


class Reason(StrEnum):
    """Why a row was left out. The codes are stable: clients filter by them."""

    # parse: the row cannot be read
    NOT_UTF8 = "NOT_UTF8"
    NOT_JSON = "NOT_JSON"
    NOT_AN_OBJECT = "NOT_AN_OBJECT"
    NOT_FINITE = "NOT_FINITE"
    NUMBER_TOO_LONG = "NUMBER_TOO_LONG"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    NESTED_TOO_DEEP = "NESTED_TOO_DEEP"
    NUL_CHARACTER = "NUL_CHARACTER"
    LONE_SURROGATE = "LONE_SURROGATE"
    LINE_TOO_LONG = "LINE_TOO_LONG"
    WRONG_FIELD_COUNT = "WRONG_FIELD_COUNT"
    BAD_QUOTES = "BAD_QUOTES"
    # parse: a source file cannot be read
    SYNTAX_ERROR = "SYNTAX_ERROR"
    TOO_COMPLEX = "TOO_COMPLEX"
    FILE_TOO_LARGE = "FILE_TOO_LARGE"
    UNSAFE_NAME = "UNSAFE_NAME"
    SYMLINK = "SYMLINK"
    ENCRYPTED = "ENCRYPTED"
    RATIO_TOO_HIGH = "RATIO_TOO_HIGH"
    UNREADABLE_MEMBER = "UNREADABLE_MEMBER"
    # validate: the row has not what it needs
    MISSING_FIELD = "MISSING_FIELD"
    WRONG_TYPE = "WRONG_TYPE"
    TOO_SHORT = "TOO_SHORT"
    TOO_LONG = "TOO_LONG"
    NO_ANSWER = "NO_ANSWER"
    # dedup_exact
    DUPLICATE = "DUPLICATE"


class Unusable(Exception):
    """One row cannot be used; the others can."""

    def __init__(self, reason: Reason, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class Record(NamedTuple):
    """A row as it stands in the upload: its place, and its fields by the upload's names."""

    line: int
    fields: dict[str, Any]
    source: str | None = None


class Rejection(NamedTuple):
    """A row that was left out, with its place. The excerpt holds at most 300 bytes."""

    line: int
    step: str
    reason: Reason
    excerpt: str
    field: str | None = None
    source: str | None = None


@dataclass
class Parsed:
    """A batch from a reader; `progress` is the share of the upload read so far."""

    records: list[Record] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    progress: float = 0.0

    @property
    def is_full(self) -> bool:
        return len(self.records) + len(self.rejections) >= BATCH_ROWS

    def reject(
        self, line: int, reason: Reason, seen: bytes | str, *, source: str | None = None, field: str | None = None
    ) -> None:
        self.rejections.append(Rejection(line, "parse", reason, excerpt(seen), field, source))


# Control characters are shown as their pictures: a NUL cannot be stored, and an escape sequence is not echoed.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}


def excerpt(seen: bytes | str, limit_bytes: int = MAX_EXCERPT_BYTES) -> str:
    """The beginning of what the user sent, at most `limit_bytes` bytes of valid UTF-8."""
    head = seen[:limit_bytes]
    text = head.decode("utf-8", "replace") if isinstance(head, bytes) else head
    if text.isascii() and text.isprintable():
        return text
    shown = text.translate(_PICTURES).rstrip("\n").encode("utf-8", "replace")
    return shown[:limit_bytes].decode("utf-8", "ignore")
