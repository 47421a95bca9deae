"""Many rows from few, within the database: each copy differs from its original where it is told to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import connection, models, transaction

from common.ownership import as_owner


def multiply(originals: models.QuerySet[Any], copies: range, **columns: str) -> int:
    """Insert a copy of each original for each number of `copies`; returns how many rows that made.

    `columns` says in SQL what a copy has of its own, of `original` and `number`; an `id` that is a uuid is made new.
    """
    model: Any = originals.model
    table = connection.ops.quote_name(model._meta.db_table)
    own = {**_new_key(model), **columns}
    names = [field.column for field in model._meta.concrete_fields if field.column in own or not _counts_itself(field)]
    values = [own.get(name, f"original.{name}") for name in names]
    with as_owner(), transaction.atomic(), connection.cursor() as cursor:
        keys = list(originals.values_list("pk", flat=True))
        # a million references, each to a row that is there, need not be looked up one by one
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
            f"FROM {table} original, generate_series(%s, %s) number WHERE original.id = ANY (%s)",
            [copies.start, copies.stop - 1, keys],
        )
        return int(cursor.rowcount)


def gather_statistics() -> None:
    """Those that autovacuum has of rows that did not come into being within a minute."""
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def _new_key(model: Any) -> Mapping[str, str]:
    return {"id": "gen_random_uuid()"} if isinstance(model._meta.pk, models.UUIDField) else {}


def _counts_itself(field: Any) -> bool:
    return isinstance(field, models.AutoField)
