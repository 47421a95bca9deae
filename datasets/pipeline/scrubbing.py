"""The step that finds secrets and personal data, and masks them, leaves their rows out, or only counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.pii import SECRETS, Policy, Scrubbed, scrub
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.rows import CONTENT, EXAMPLES, Example, Outcome, Reason, Rejection, marked

SEARCHED = (*CONTENT, "group")


@dataclass(frozen=True)
class Scrub:
    """`key` makes the placeholders: the same value has the same one wherever the same key is used.

    `found` counts by kind, in rows that are left out, too. `each_batch` gets rows as they were, and what was found in them.
    """

    policy: Policy
    key: bytes
    found: Counter[Kind]
    each_batch: Callable[[pa.Table, Scrubbed], None] = lambda rows, scrubbed: None

    name = "pii"

    def begin(self) -> Callable[[pa.Table], Outcome]:
        return self._apply

    def _apply(self, rows: pa.Table) -> Outcome:
        columns = {name: rows[name] for name in SEARCHED if rows[name].null_count < rows.num_rows}
        scrubbed = scrub(columns, self.policy, self.key, preview_limit=EXAMPLES)
        self.found.update(scrubbed.counts)
        if not scrubbed.counts:
            return Outcome(rows)
        self.each_batch(rows, scrubbed)
        for name, column in scrubbed.columns.items():
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
        stays = pc.is_null(scrubbed.dropped)
        kinds, lines, sources = (each.to_pylist() for each in (scrubbed.dropped, rows["line"], rows["source"]))
        rejections = [
            _rejection(Kind(kind), line, source)
            for kind, line, source in zip(kinds, lines, sources, strict=True)
            if kind is not None
        ]
        examples = [
            Example(lines[shown.row], sources[shown.row], shown.kind, shown.excerpt) for shown in scrubbed.previews
        ]
        count = pc.sum(pc.and_(scrubbed.is_masked, stays)).as_py() or 0
        rows = marked(rows, scrubbed.is_masked, self.name)
        return Outcome(rows.filter(stays), rejections, count, examples if count else [])


def _rejection(kind: Kind, line: int, source: str | None) -> Rejection:
    """Without a word of the row: it is left out for what it says."""
    reason = Reason.SECRET if kind in SECRETS else Reason.PERSONAL_DATA
    return Rejection(line, Scrub.name, reason, f"holds {kind}", None, source)
