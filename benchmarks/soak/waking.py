"""Has each web thread made, with its connections: the pools grow as they are needed, and that is no leak."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

from benchmarks.soak.mix import RUN_CONFIG, RUN_NAME, START_RUN

TABLE = "accounts_membership"  # whoever asks is looked up there
AT_ONCE = 32
PATIENCE_S = 60.0


def wake_all_threads(url: str, threads: int, database: Any, people: Sequence[tuple[str, str]]) -> None:
    """Start runs, as many people, while nobody can be answered, until `threads` threads wait in PostgreSQL. Then all ring at once.

    `database` is an owner's connection in autocommit mode; of the people there are tokens, and versions to learn from. Raises TimeoutError.
    """
    everybody = itertools.cycle(people)
    # a web process turns away who comes when its threads are taken and its line is full: so they come until all are
    client = httpx.Client(base_url=url, timeout=120, trust_env=False, limits=httpx.Limits(max_connections=None))
    with client, ThreadPoolExecutor(16 * threads) as pool, nobody_is_told_apart(database):
        give_up_at = time.monotonic() + PATIENCE_S
        while (waiting := _waiting(database)) < threads:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"Only {waiting} of {threads} web threads are at work.")
            for token, version in itertools.islice(everybody, AT_ONCE):
                pool.submit(client.post, "/graphql", json=_start(version), headers={"Authorization": f"Bearer {token}"})
            time.sleep(1)


def _start(version: str) -> dict[str, Any]:
    wanted = {"datasetVersionId": version, "name": RUN_NAME, "config": RUN_CONFIG}
    return {"query": START_RUN, "variables": {"input": wanted}}


@contextmanager
def nobody_is_told_apart(database: Any) -> Iterator[None]:
    """Each request waits for the length of the block."""
    with database.cursor() as cursor:
        cursor.execute(f"BEGIN; LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


def _waiting(database: Any) -> int:
    with database.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass", [TABLE])
        return int(cursor.fetchone()[0])
