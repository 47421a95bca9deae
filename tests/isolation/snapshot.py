"""All that the database holds, table by table, as digests."""

from __future__ import annotations

from django.db import connection

from common.tenancy import operator
from tests.isolation.catalog import tables

APART_FROM = {"accounts_apikey": ["last_used_at"]}
"""That a key was used is noted to the minute, whatever it was used for."""


def snapshot() -> dict[str, tuple[int, str]]:
    """The number of each table's rows, and a digest of them all."""
    of_each = [
        f"""SELECT '{name}', count(*), coalesce(md5(string_agg(content, ',' ORDER BY content)), '')
            FROM (SELECT (to_jsonb(t) - ARRAY[{", ".join(f"'{column}'" for column in APART_FROM.get(name, [])) or "''"}])::text
                AS content FROM {name} t) AS each"""
        for name in tables()
    ]
    with operator(), connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(of_each))
        return {name: (count, digest) for name, count, digest in cursor.fetchall()}


def changed(before: dict[str, tuple[int, str]]) -> list[str]:
    """The tables that are not what they were."""
    return [name for name, content in snapshot().items() if content != before[name]]
