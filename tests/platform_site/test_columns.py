"""What is answered without a resolver is what the resolver would have answered."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import GraphQLObjectType

from accounts.models import User
from common.tenancy import tenant
from platform_site import columns, execution
from platform_site.columns import ASK, Column, column
from platform_site.schema import schema
from tests.cast import Person
from tests.rows import global_id, make_adapter, make_run, make_version
from training.models import TrainingRun

TYPES = schema._schema.type_map
SCALARS = "id name status executor attempt createdAt startedAt errorCode step totalSteps loss"
DOCUMENT = f"""query ($id: ID!) {{
    trainingRun(id: $id) {{ {SCALARS} label: name createdBy {{ id email }} adapter {{ id sizeBytes createdAt testLoss }}
        datasetVersion {{ id number recipe {{ __typename }} dataset {{ id name }} }} }}
    node(id: $id) {{ id ... on TrainingRun {{ {SCALARS} }} }}
}}"""


def of(type_name: str, field: str) -> Column | None:
    parent = TYPES[type_name]
    assert isinstance(parent, GraphQLObjectType)
    return column(parent, field)


def test_an_answer_is_the_same_with_resolvers_alone(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(alice, make_version(alice), loss=1.25)
    make_adapter(alice, run)
    answer = alice.data(DOCUMENT, id=global_id(run))
    assert answer["trainingRun"]["loss"] == 1.25 and answer["trainingRun"]["errorCode"] is None
    assert answer["node"]["id"] == global_id(run)
    monkeypatch.setattr(execution, "column", lambda parent, name: None)
    assert alice.data(DOCUMENT, id=global_id(run)) == answer


def test_resolvers_are_called_for_no_column(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = make_run(alice), []
    resolve = execution.StrawberryGraphQLCoreExecutionContext.execute_field

    def noted(self: Any, parent_type: Any, source: Any, details: Any, *rest: Any) -> Any:
        asked.append(details[0].node.name.value)
        return resolve(self, parent_type, source, details, *rest)

    monkeypatch.setattr(execution.StrawberryGraphQLCoreExecutionContext, "execute_field", noted)
    alice.data("query ($id: ID!) { trainingRun(id: $id) { id name loss events { __typename } } }", id=global_id(run))
    assert asked == ["trainingRun", "events"]


def test_only_plain_columns_and_ids_are_known() -> None:
    assert {name for name in TYPES["TrainingRun"].fields if of("TrainingRun", name) is None} == {  # type: ignore[union-attr]
        *("organization", "datasetVersion", "createdBy", "adapter", "resumedFrom"),  # rows
        *(
            "baseModel",
            "config",
            "events",
            "metrics",
            "checkpoints",
            "estimate",
            "etaSeconds",
        ),  # with resolvers of their own
    }
    assert of("TrainingRun", "__typename") is None
    assert of("Query", "node") is None
    assert of("__Type", "name") is None


def test_a_field_with_an_extension_such_as_a_permission_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    field = TYPES["TrainingRun"].fields["name"]  # type: ignore[union-attr]
    parent: Any = TYPES["TrainingRun"]
    assert columns._as_column(parent, field) is not None
    monkeypatch.setattr(field.extensions["strawberry-definition"], "extensions", [object()])
    assert columns._as_column(parent, field) is None


def test_what_was_not_read_or_cannot_be_written_is_left_to_the_resolver(alice: Person) -> None:
    name, loss, attempt = (of("TrainingRun", field) for field in ("name", "loss", "attempt"))
    assert name and loss and attempt
    run = TrainingRun(name="First", loss=None, attempt="many")
    assert (name.of(run), loss.of(run)) == ("First", None)
    assert attempt.of(run) is ASK  # no integer
    assert name.of(TrainingRun(name=None)) is ASK  # never null
    assert name.of(User(name="Alice")) is ASK  # not of its model
    del run.__dict__["name"]
    assert name.of(run) is ASK


def test_a_value_that_its_type_does_not_know_is_an_error_at_its_place(alice: Person) -> None:
    run = make_run(alice)
    with tenant(alice.principal):
        TrainingRun.objects.filter(pk=run.pk).update(executor="NOWHERE")
    answer = alice.ask("query ($id: ID!) { trainingRun(id: $id) { executor } }", id=global_id(run))
    assert answer["data"] == {"trainingRun": None}
    (error,) = answer["errors"]
    assert error["path"] == ["trainingRun", "executor"]
    assert "NOWHERE" in error["message"]
