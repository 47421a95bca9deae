"""Two tenants take turns on one database connection, and what goes wrong in between is no one's gain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle, islice
from typing import Any

from django.db import DatabaseError, connection

from common.tenancy import operator, tenant
from datasets.models import Dataset
from tests.isolation.askers import Asker
from tests.isolation.catalog import rows
from tests.isolation.documents import document, variables
from tests.isolation.flaws import expect_none
from tests.isolation.world import World

READS = ["datasets", "dataset", "organization", "auditLog", "trainingRuns"]
WRITES = ["cancelTrainingRun", "startUpload"]
WORDLESS = {"auditLog", "startUpload"}
"""What is answered there need not hold the asker's own word."""
HELD = "SELECT pg_backend_pid(), current_user::text, coalesce(current_setting('app.organizations', true), '')"


def check_turns(world: World, count: int) -> None:
    """So many requests, one of ours, one of theirs, and now and then a mishap. Raises AssertionError."""
    askers = [world.askers["owner"], world.askers["outsider"]]
    (before,) = rows(HELD)

    def flaws() -> Iterator[str]:
        if before[1:] != ("platform_app", ""):
            yield f"it begins as {before}"
        for number, (asker, name) in enumerate(islice(_turns(askers), count)):
            answer = json.dumps(_ask(asker, name))
            if any(other.word in answer for other in world.others(asker)):
                yield f"{name}, request {number}, tells {asker.name} of the other: {answer[:300]}"
            if asker.home and asker.home.word not in answer and name not in WORDLESS:
                yield f"{name}, request {number}, tells {asker.name} nothing: {answer[:300]}"
            if number % 10 == 9:
                list(MISHAPS.values())[number // 10 % len(MISHAPS)](asker)
            if rows(HELD) != [before]:
                yield f"after request {number}, {name} as {asker.name}, the connection is {rows(HELD)}, not {before}"
                return

    expect_none(flaws())


def _turns(askers: list[Asker]) -> Iterator[tuple[Asker, str]]:
    """Each of them asks for each thing in turn."""
    for name in cycle([*READS, *WRITES]):
        yield from ((asker, name) for asker in askers)


def _ask(asker: Asker, name: str) -> Any:
    assert asker.home is not None
    kind = "mutation" if name in WRITES else "query"
    return asker.ask(document(kind, name), variables(kind, name, asker.home))


# ---------------------------------------------------------------------------------------------- mishaps


class _Mishap(Exception):
    pass


def breaks_in_a_scope(asker: Asker) -> None:
    with suppress(_Mishap), tenant(asker.principal()):
        assert Dataset.objects.exists()
        raise _Mishap


def aborts_its_transaction(asker: Asker) -> None:
    with suppress(DatabaseError), tenant(asker.principal()), connection.cursor() as cursor:
        cursor.execute("SELECT 1 / 0")


def goes_on_after_an_abort(asker: Asker) -> None:
    """The error is swallowed, and the scope left as if nothing had been."""
    with suppress(DatabaseError), tenant(asker.principal()), connection.cursor() as cursor:
        with suppress(DatabaseError):
            cursor.execute("SELECT 1 / 0")
        cursor.execute("SELECT 1")


def sees_everything(asker: Asker) -> None:
    with operator():
        assert Dataset.objects.count() == 2


def breaks_as_an_operator(asker: Asker) -> None:
    with suppress(_Mishap), operator():
        raise _Mishap


def aborts_as_an_operator(asker: Asker) -> None:
    with suppress(DatabaseError), operator(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 / 0")


MISHAPS: dict[str, Callable[[Asker], None]] = {
    each.__name__: each
    for each in (
        breaks_in_a_scope,
        aborts_its_transaction,
        goes_on_after_an_abort,
        sees_everything,
        breaks_as_an_operator,
        aborts_as_an_operator,
    )
}
