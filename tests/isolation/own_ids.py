"""With what is theirs everybody may do what the table of permissions says: no less, no more, and nothing of another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.isolation.askers import Asker
from tests.isolation.documents import document, variables
from tests.isolation.flaws import expect_none
from tests.isolation.foreign_ids import code_of
from tests.isolation.operations import OPERATIONS, SEEN_BY, Who
from tests.isolation.owner import taken_back
from tests.isolation.places import ids_within, root
from tests.isolation.snapshot import changed, snapshot
from tests.isolation.world import World


def check_own(world: World, kind: str, name: str, *askers: str) -> None:
    """Raises AssertionError that names the operation, the asker, and the answer.

    Those who have no organization are asked only where none is named: what was theirs is another's now.
    """
    takes_ids = any(ids_within(root(kind).fields[name].args))
    asking = [world.askers[each] for each in askers or world.askers]

    def flaws() -> Iterator[str]:
        asked, before = document(kind, name), snapshot()
        for asker in asking:
            if kind == "subscription":  # what it writes, it commits in a thread of its own
                before = snapshot()
            if asker.home is None and takes_ids and not asker.is_anonymous:
                continue
            with taken_back():
                answer = asker.ask(asked, variables(kind, name, asker.home or world.ours))
                refused = not OPERATIONS[name].admits(asker)
                tables = changed(before) if refused else []
            if flaw := _flaw(world, asker, name, answer, takes_ids):
                yield f"{name} as {asker.name} {flaw}: {json.dumps(answer)[:300]}"
            if tables:
                yield f"{name} as {asker.name} is refused, and changes {', '.join(tables)}"

    expect_none(flaws())


def _flaw(world: World, asker: Asker, name: str, answer: dict[str, Any], takes_ids: bool) -> str:
    operation, code = OPERATIONS[name], code_of(answer, name)
    if told := [tenant.word for tenant in world.others(asker) if tenant.word in json.dumps(answer)]:
        return f"tells of {told[0]}"
    if not operation.admits(asker):
        return "" if code == refusal(asker, name) else f"should be refused with {refusal(asker, name)}"
    if code != operation.answers:
        return f"should be answered with {operation.answers or 'success'}"
    return "is answered with nothing" if code is None and takes_ids and _is_empty(name, answer) else ""


def refusal(asker: Asker, name: str) -> str:
    """What somebody hears who may not do this with their own: of keys, say, not everybody knows."""
    operation = OPERATIONS[name]
    if asker.is_anonymous or operation.who is Who.PEOPLE:
        return "UNAUTHENTICATED"
    seen_by = SEEN_BY.get(operation.id_is_of or "")
    is_hidden = seen_by is not None and asker.role is not None and not asker.may(seen_by)
    return "NOT_FOUND" if is_hidden else "NOT_ALLOWED"


def _is_empty(name: str, answer: dict[str, Any]) -> bool:
    if isinstance(answer["data"], list):  # what a subscription said
        return not answer["data"]
    told = answer["data"][name]
    return not told or (isinstance(told, dict) and told.get("totalCount") == 0)
