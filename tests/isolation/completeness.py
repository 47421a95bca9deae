"""Whether all that there is takes part: operations in the table, kinds of nodes and texts in the two organizations."""

from __future__ import annotations

from collections.abc import Iterator

from common.tenancy import operator
from tests.isolation.catalog import rows, tenant_tables, text_columns
from tests.isolation.documents import variables
from tests.isolation.flaws import expect_none
from tests.isolation.operations import OPERATIONS
from tests.isolation.places import fields, ids_below_the_roots, nodes, places
from tests.isolation.world import Tenant, World

OF_OUR_WORDS = {"role", "status", "kind", "executor", "stage", "base_model_name", "base_model_revision"}
OF_DIGESTS = {
    *("sha256", "expected_sha256", "secret_sha256", "token_sha256"),
    *("fingerprint", "digest", "production_digest", "hash", "previous_hash"),
}
OF_NUMBERS = {"config", "splits", "estimate"}
WITHOUT_WORDS = OF_OUR_WORDS | OF_DIGESTS | OF_NUMBERS | {"address"}
"""Columns that hold nobody's own words."""

TABLE = "tests/isolation/operations.py"
WORLD = "tests/isolation/world.py"


def check_operations() -> None:
    known = {name: kind for kind, name, _ in fields()}
    expect_none(
        [f"the {known[name]} `{name}` is not in OPERATIONS ({TABLE}): add a line that says who may" for name in known.keys() - OPERATIONS.keys()]
        + [f"`{name}` is in OPERATIONS ({TABLE}), and the schema has no such field" for name in OPERATIONS.keys() - known.keys()]
    )  # fmt: skip


def check_places() -> None:
    """Each id is of a kind that the two organizations have one of."""
    expect_none(
        [f"{place} takes the id of a {place.takes}, which is no node: say of what, id=... in OPERATIONS ({TABLE})" for place in places() if place.takes not in nodes()]
        + [f"{place} takes an id below the root: check_foreign_ids asks roots alone" for place in ids_below_the_roots()]
    )  # fmt: skip


def check_examples(world: World) -> None:
    """Raises AssertionError for an operation that cannot be called."""
    for kind, name, _ in fields():
        variables(kind, name, world.ours)


def check_rows(world: World) -> None:
    expect_none(
        f"{tenant.word} has no {kind}: make one in _tenant() ({WORLD})"
        for tenant in (world.ours, world.theirs)
        for kind in nodes()
        if kind not in tenant.rows
    )


def check_words(world: World) -> None:
    """Each text of each table says whose it is, so that no answer can show one without being found out."""

    def flaws(tenant: Tenant) -> Iterator[str]:
        for name, table in tenant_tables().items():
            for column in text_columns(name):
                if column in WITHOUT_WORDS:
                    continue
                asked = f"SELECT bool_or({column}::text LIKE %s) FROM {name} WHERE {table.tenant_column} = %s"
                with operator():
                    found = rows(asked, f"%{tenant.word}%", tenant.organization.pk)
                if found != [(True,)]:
                    yield f"{name}.{column} holds no word of {tenant.word}: write one there ({WORLD}), or WITHOUT_WORDS"

    expect_none([*flaws(world.ours), *flaws(world.theirs)])
