"""200 ids of another's and 200 that never existed, in turns, through the whole of HTTP: no byte tells them apart.

Nor does the time, because the database is asked the same; `python -m benchmarks ids` measures it.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from django.http import HttpResponse
from django.test import Client
from strawberry import relay

from common.tenancy import operator
from datasets.models import Dataset
from tests.accounts.test_timing import statements
from tests.isolation.askers import Asker
from tests.isolation.documents import document, put, variables
from tests.isolation.places import Place, place, places
from tests.isolation.urls import bearer
from tests.isolation.world import World
from tests.rows import global_id

COUNT = 200


@pytest.fixture
def foreign(world: World) -> list[str]:
    theirs = world.theirs.organization
    with operator():
        return [
            global_id(row) for row in Dataset.objects.bulk_create(Dataset(organization=theirs) for _ in range(COUNT))
        ]


def post(asker: Asker, where: Place, one: str) -> HttpResponse:
    assert asker.home is not None
    given = variables(where.kind, where.field, asker.home)
    put(given, where.path, one)
    body = json.dumps({"query": document(where.kind, where.field), "variables": given})
    answer: Any = Client().post("/graphql", body, content_type="application/json", headers=bearer(asker))
    return answer


def without(one: str, answer: HttpResponse) -> tuple[int, dict[str, str], bytes]:
    headers = {name: value for name, value in answer.headers.items() if not name.startswith("RateLimit-")}
    return answer.status_code, headers, answer.content.replace(one.encode(), b"<id>")


@pytest.mark.parametrize("where", ["dataset(id)", "processDataset(input.datasetId)"])
def test_no_byte_of_the_answers_differs(world: World, foreign: list[str], where: str) -> None:
    owner, answers = world.askers["owner"], set()
    for theirs in foreign:
        for one in (theirs, relay.to_base64("Dataset", uuid4())):
            answers.add(repr(without(one, post(owner, place(where), one))))
    assert len(answers) == 1, answers
    found = post(owner, place("dataset(id)"), world.ours.id_of("Dataset"))
    assert world.ours.word in found.content.decode(), "what is there is found"


@pytest.mark.parametrize("where", places("query", "mutation"), ids=str)
def test_the_database_is_asked_the_same(world: World, where: Place) -> None:
    for asker in (world.askers["owner"], world.askers["viewer"]):

        def ask(one: str, asker: Asker = asker) -> list[str]:
            given = variables(where.kind, where.field, world.ours)
            put(given, where.path, one)
            return statements(lambda: asker.ask(document(where.kind, where.field), given))

        unknown = ask(relay.to_base64(where.takes, uuid4()))
        assert ask(world.theirs.id_of(where.takes)) == unknown
        assert len(unknown) > 5
