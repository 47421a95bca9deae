"""For another's id everybody gets, byte for byte, the answer to an id that never existed; and nothing changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from graphql import get_named_type, is_list_type, is_non_null_type

from tests.isolation.absent_ids import absent
from tests.isolation.askers import Asker
from tests.isolation.documents import document, put, variables
from tests.isolation.flaws import expect_none
from tests.isolation.places import Place, ids_within, root
from tests.isolation.snapshot import changed, snapshot
from tests.isolation.world import World

NOT_FOUND = {"kind": "ERROR", "code": "NOT_FOUND", "field": None, "message": "There is no such object."}
SIGN_IN = "Sign in first: send `Authorization: Bearer <access token>`."
UNAUTHENTICATED = {"kind": "PERMISSION", "code": "UNAUTHENTICATED", "field": None, "message": SIGN_IN}

REQUESTS, BATCH = "requests", "PredictionBatch"  # each of a batch is answered by itself

Ids = Callable[[World, Asker, str, bool], Iterable[str]]


def check_foreign_ids(world: World, place: Place, *askers: str, ids: Ids = absent) -> None:
    """Raises AssertionError that names the place, the asker, and the ids that were answered otherwise."""
    before, flaws = snapshot(), []
    for name in askers or world.askers:
        flaws += list(_told_apart(world, place, world.askers[name], ids))
    if tables := changed(before):
        flaws.append(f"{place} changes {', '.join(tables)}")
    expect_none(flaws)


def _told_apart(world: World, place: Place, asker: Asker, ids: Ids) -> Iterator[str]:
    asked, answers = document(place.kind, place.field), set()
    for one in ids(world, asker, place.takes, place.field == "node"):
        given = variables(place.kind, place.field, asker.home or world.ours)
        put(given, place.path, one)
        answer = asker.ask(asked, given)
        answers.add(json.dumps(answer))
        if not is_absence(place, asker, answer):
            yield f"{place} as {asker.name}: {one!r:.80} is answered {json.dumps(answer)[:300]}"
    if len(answers) != 1:
        yield f"{place} as {asker.name}: {len(answers)} answers, which should be one: {sorted(answers)}"


def is_absence(place: Place, asker: Asker, answer: dict[str, Any]) -> bool:
    """Whether it is, word for word, what is said of something that is not there.

    Whoever may not use the operation at all may be told that, if the rest of what they name is theirs: it says nothing
    of the id.
    """
    if asker.is_anonymous:
        return without_places(answer) == refused(place, UNAUTHENTICATED)
    names_something_else = len(list(ids_within(root(place.kind).fields[place.field].args))) > 1
    if names_something_else and not place.operation.admits(asker) and code_of(answer, place.field) == "NOT_ALLOWED":
        return True
    return without_places(answer) == nothing(place)


def without_places(answer: dict[str, Any]) -> dict[str, Any]:
    """Without where in the document an error came about."""
    if "errors" not in answer:
        return answer
    told = [{key: error[key] for key in error.keys() - {"locations", "path"}} for error in answer["errors"]]
    return {"data": answer["data"], "errors": told}


def nothing(place: Place) -> dict[str, Any]:
    if REQUESTS in place.path:
        results = [{"__typename": "OperationInfo", "messages": [NOT_FOUND]}]
        return {"data": {place.field: {"__typename": BATCH, "results": results}}}
    if place.kind != "query":
        return refused(place, NOT_FOUND)
    kind = root("query").fields[place.field].type
    inner = kind.of_type if is_non_null_type(kind) else kind
    if is_list_type(inner):
        return {"data": {place.field: []}}
    if get_named_type(kind).name.endswith("Connection"):
        return {"data": {place.field: {"totalCount": 0, "edges": []}}}
    return {"data": {place.field: None}}


def refused(place: Place, message: dict[str, Any]) -> dict[str, Any]:
    if place.kind == "mutation":
        return {"data": {place.field: {"__typename": "OperationInfo", "messages": [message]}}}
    return {"data": None, "errors": [{"message": message["message"], "extensions": {"code": message["code"]}}]}


def code_of(answer: dict[str, Any], field: str) -> str | None:
    """The code of a refusal, None for an answer."""
    if answer.get("errors"):
        code: str = answer["errors"][0].get("extensions", {}).get("code", answer["errors"][0]["message"])
        return code
    told = answer["data"][field] if isinstance(answer["data"], dict) else None
    if isinstance(told, dict) and told.get("__typename") == BATCH:
        (told,) = told["results"]
    if isinstance(told, dict) and told.get("__typename") == "OperationInfo":
        return str(told["messages"][0]["code"])
    return None
