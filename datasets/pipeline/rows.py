"""What flows between the steps: pieces of an upload, rows as typed Arrow tables, and rejections."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from datasets.pipeline.reading.columns import Columns

MAX_LINE_BYTES = 1_000_000
MAX_EXCERPT_BYTES = 300
MAX_FIELD_BYTES = 100  # of the name of a rejection's field
EXAMPLES = 3  # of what a step did
BATCH_ROWS = 20_000  # a megabyte of one-letter lines is half a million rows

# Rows as the trainer reads them. A row has prompt and completion, or text, or messages (a JSON list of {role, content});
# source is a path inside a zip; line counts from 1; changed_by names the steps that changed the row, in their order,
# separated by spaces.
ROWS = pa.schema(
    [
        pa.field("prompt", pa.string()),
        pa.field("completion", pa.string()),
        pa.field("text", pa.string()),
        pa.field("messages", pa.string()),
        pa.field("group", pa.string()),
        pa.field("source", pa.string()),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("changed_by", pa.string()),
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
    EXPECTATION_FAILED = "EXPECTATION_FAILED"
    # dedup_exact
    DUPLICATE = "DUPLICATE"
    # dedup_near
    NEAR_DUPLICATE = "NEAR_DUPLICATE"
    # pii
    SECRET = "SECRET"  # noqa: S105
    PERSONAL_DATA = "PERSONAL_DATA"


class Unusable(Exception):
    """One row cannot be used; the others can."""

    def __init__(self, reason: Reason, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class Rejection(NamedTuple):
    """A row that was left out, with its place. The excerpt holds at most 300 bytes, the name of the field 100."""

    line: int
    step: str
    reason: Reason
    excerpt: str
    field: str | None = None
    source: str | None = None


def rejection_table(rejections: list[Rejection]) -> pa.Table:
    columns = {name: [getattr(rejection, name) for rejection in rejections] for name in REJECTIONS.names}
    return pa.Table.from_pydict(columns, schema=REJECTIONS)


def marked(rows: pa.Table, changed: Any, step: str) -> pa.Table:
    """The rows, with the step's name added where it changed one: `changed` is a mask of them."""
    before = rows["changed_by"]
    after = pc.if_else(changed, pc.binary_join_element_wise(before, step, " ", null_handling="skip"), before)
    return rows.set_column(rows.schema.get_field_index("changed_by"), rows.schema.field("changed_by"), after)


def texts(rows: pa.Table) -> pa.ChunkedArray:
    """What each row says, in one piece."""
    return pc.binary_join_element_wise(*(rows[name] for name in CONTENT), "\n", null_handling="skip")


class Example(NamedTuple):
    """Something that a step did to a row, as its user would see it."""

    line: int
    source: str | None
    before: str
    after: str


@dataclass(frozen=True)
class Outcome:
    """What a step made of a batch: in == kept + dropped; `examples` are the first few of the changed rows."""

    kept: pa.Table
    rejections: list[Rejection] = field(default_factory=list)
    changed: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class Parsed:
    """A batch as parsed: every record in it is a row, unfit, or a rejection."""

    rows: pa.Table  # of ROWS
    unfit: list[Rejection]  # records that make no row: a step that looks at rows tells of them
    rejections: list[Rejection]
    fields_of: Callable[[int], Mapping[str, Any]]  # a row's record as it stands in the upload, by the row's position
    held_bytes: int = 0  # of memory that fields_of keeps: a short row may be all that a long piece of the upload has

    @property
    def records(self) -> int:
        return self.rows.num_rows + len(self.unfit)

    def released(self) -> Parsed:
        """The same; without a row nothing is kept that fields could be read from."""
        return self if self.rows.num_rows else replace(self, fields_of=_no_fields, held_bytes=0)


def _no_fields(place: int) -> Mapping[str, Any]:
    raise IndexError(place)


def joined(batches: list[Parsed]) -> Parsed:
    """One batch of several."""
    if len(batches) == 1:
        return batches[0]
    starts = [0, *accumulate(batch.rows.num_rows for batch in batches)]

    def fields_of(place: int) -> Mapping[str, Any]:
        batch = bisect_right(starts, place) - 1
        return batches[batch].fields_of(place - starts[batch])

    return Parsed(
        pa.concat_tables([batch.rows for batch in batches]).combine_chunks(),
        [one for batch in batches for one in batch.unfit],
        [one for batch in batches for one in batch.rejections],
        fields_of,
        sum(batch.held_bytes for batch in batches),
    )


class Chunk(Protocol):
    """A piece of an upload, read but not parsed; `progress` is the share of the upload read so far."""

    progress: float

    def sample(self, most: int) -> list[Mapping[str, Any]]:
        """The fields of the first records, by the upload's names; none where no record can be read."""

    def parsed(self, columns: Columns) -> Parsed: ...


def parse_rejection(
    line: int, reason: Reason, seen: bytes | str, *, source: str | None = None, field: str | None = None
) -> Rejection:
    return Rejection(line, "parse", reason, excerpt(seen), _named(field), source)


def unfit(line: int, error: Unusable, fields: Mapping[str, Any], source: str | None = None) -> Rejection:
    """A record that has not what a row needs, shown as its user knows it."""
    return Rejection(line, "validate", error.reason, excerpt(_shown(fields)), _named(error.field), source)


def _named(field: str | None) -> str | None:
    return excerpt(field, MAX_FIELD_BYTES) if field is not None else None


def _shown(fields: Mapping[str, Any]) -> str:
    shown = {name: value[:300] if isinstance(value, str) else value for name, value in list(fields.items())[:20]}
    return json.dumps(shown, ensure_ascii=False, default=str)


# Control characters are shown as their pictures: a NUL cannot be stored, and an escape sequence is not echoed.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}


def excerpt(seen: bytes | str, limit_bytes: int = MAX_EXCERPT_BYTES) -> str:
    """The beginning of what the user sent, at most `limit_bytes` bytes of valid UTF-8."""
    head = seen[:limit_bytes]
    text = head.decode("utf-8", "replace") if isinstance(head, bytes) else head
    if not text.isprintable():
        text = text.translate(_PICTURES).rstrip("\n")
    elif text.isascii():
        return text
    shown = text.encode("utf-8", "replace")
    return shown[:limit_bytes].decode("utf-8", "ignore")
