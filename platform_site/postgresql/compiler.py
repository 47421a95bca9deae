"""How SQL is worded: as Django does, except that what was worded for a selection before is not worded anew.

Only the parts around the conditions are kept: columns, joins, order, and slice. Which rows there are, and for whom, Django
words each time. docs/decisions/0027-sql-around-the-conditions.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db.backends.postgresql import compiler
from django.db.backends.postgresql.compiler import (
    SQLAggregateCompiler,
    SQLDeleteCompiler,
    SQLInsertCompiler,
    SQLUpdateCompiler,
)
from django.db.models import Model
from django.db.models.sql import Query

__all__ = ["SQLAggregateCompiler", "SQLCompiler", "SQLDeleteCompiler", "SQLInsertCompiler", "SQLUpdateCompiler"]

HINT = "wordings"
"""The attribute of a Query that says where its wordings are kept; it is copied with the query."""
PARTS = ("model", "order_by", "low_mark", "high_mark", "select_related", "deferred_loading")
"""What a wording depends on beside the conditions."""
CONDITIONS = ("where", "alias_map", "alias_refcount", "table_map", "used_aliases")
BESIDE = ("base_table", "filter_is_sticky", "_lookup_joins", "_annotation_select_cache", HINT)
"""What is worked out of the others, and what says something of the next filter only."""
UNKNOWN = object()
AT_MOST = 8


@dataclass(frozen=True)
class Wording:
    """A statement before and after its conditions, and what a compiler knows of the columns in it."""

    parts: tuple[Any, ...]
    head: str
    tail: str
    columns: dict[str, Any]


class Wordings:
    """Those of one selection, which differ in order and slice."""

    def __init__(self) -> None:
        self._kept: list[Wording] = []

    def of(self, parts: tuple[Any, ...]) -> Wording | None:
        return next((wording for wording in self._kept if wording.parts == parts), None)

    def keep(self, wording: Wording) -> None:
        if len(self._kept) < AT_MOST:
            self._kept.append(wording)

    def __len__(self) -> int:
        return len(self._kept)


class SQLCompiler(compiler.SQLCompiler):
    def as_sql(self, with_limits: bool = True, with_col_aliases: bool = False) -> tuple[str, tuple[Any, ...]]:
        wordings: Wordings | None = getattr(self.query, HINT, None)
        if wordings is None or not with_limits or with_col_aliases or not _is_plain(self.query):
            return super().as_sql(with_limits, with_col_aliases)
        conditions: Any = self.query.where
        try:
            where, params = self.compile(conditions)
        except (EmptyResultSet, FullResultSet):  # there is nothing to ask, or no condition to ask it with
            return super().as_sql()
        parts = tuple(getattr(self.query, part) for part in PARTS)
        known = wordings.of(parts)
        if known is None:
            return self._worded(wordings, parts, where)
        vars(self).update(known.columns)
        return f"{known.head}{where}{known.tail}", tuple(params)

    def _worded(self, wordings: Wordings, parts: tuple[Any, ...], where: str) -> tuple[str, tuple[Any, ...]]:
        """By Django, and kept if the conditions stand in it once, and no values but theirs."""
        sql, params = super().as_sql()
        head, found, tail = sql.partition(where)
        if found and where not in tail and head.count("%s") == tail.count("%s") == 0:
            wordings.keep(Wording(parts, head, tail, {name: getattr(self, name) for name in COLUMNS}))
        return sql, params


COLUMNS = ("select", "klass_info", "annotation_col_map", "col_count", "has_extra_select")


def _is_plain(query: Any) -> bool:
    """Whether it is one of PARTS and conditions on the model's own table, and in all else as new."""
    if [alias for alias, count in query.alias_refcount.items() if count] != [query.model._meta.db_table]:
        return False
    new = _new(query.model)
    return all(
        name in PARTS or name in CONDITIONS or name in BESIDE or value == getattr(new, name, UNKNOWN)
        for name, value in vars(query).items()
    )


@cache
def _new(model: type[Model]) -> Query:
    return Query(model)
