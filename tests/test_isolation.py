"""For another organization's id the answer is byte for byte the one for an id that never existed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from graphql import GraphQLInputObjectType, GraphQLObjectType, get_named_type
from strawberry import relay

from accounts.models import ApiKey, AuditEntry, Invitation, Organization, User
from common.graphql import Context
from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion, Upload
from platform_site.schema import schema
from tests.cast import PASSWORD, Person, make_person
from tests.rows import global_id, make_adapter, make_upload
from training.models import Adapter, TrainingRun

QUERIES = {
    "node(id)": "query ($id: ID!) { node(id: $id) { __typename id } }",
    "organization(id)": "query ($id: ID!) { organization(id: $id) { name members { role } } }",
    "upload(id)": "query ($id: ID!) { upload(id: $id) { fileName } }",
    "dataset(id)": "query ($id: ID!) { dataset(id: $id) { name latestVersion { number } versions { totalCount } } }",
    "datasetVersion(id)": "query ($id: ID!) { datasetVersion(id: $id) { number preview { text } events { sequence } } }",
    "trainingRun(id)": "query ($id: ID!) { trainingRun(id: $id) { name events { sequence } checkpoints { step } } }",
    "adapter(id)": "query ($id: ID!) { adapter(id: $id) { name card } }",
    "datasets(organizationId)": "query ($id: ID!) { datasets(organizationId: $id) { totalCount edges { cursor } } }",
    "trainingRuns(organizationId)": "query ($id: ID!) { trainingRuns(organizationId: $id) { totalCount edges { cursor } } }",
    "trainingRuns(datasetVersionId)": "query ($id: ID!) { trainingRuns(datasetVersionId: $id) { totalCount edges { cursor } } }",
    "apiKeys(organizationId)": "query ($id: ID!) { apiKeys(organizationId: $id) { name } }",
    "auditLog(organizationId)": "query ($id: ID!) { auditLog(organizationId: $id) { totalCount edges { cursor } } }",
    "adapters(organizationId)": "query ($id: ID!) { adapters(organizationId: $id) { totalCount edges { cursor } } }",
}
INFO = "__typename ... on OperationInfo { messages { kind code field message } }"
MUTATIONS = {
    "startUpload(input.organizationId)": (
        f'mutation ($id: ID!) {{ startUpload(input: {{organizationId: $id, fileName: "f", sizeBytes: 1}}) {{ {INFO} }} }}'
    ),
    "createDataset(input.organizationId)": (
        f'mutation ($id: ID!, $own: ID!) {{ createDataset(input: {{organizationId: $id, name: "d", uploadId: $own}}) {{ {INFO} }} }}'
    ),
    "createDataset(input.uploadId)": (
        f'mutation ($id: ID!) {{ createDataset(input: {{name: "d", uploadId: $id}}) {{ {INFO} }} }}'
    ),
    "processDataset(input.datasetId)": (
        f"mutation ($id: ID!) {{ processDataset(input: {{datasetId: $id}}) {{ {INFO} }} }}"
    ),
    "processDataset(input.uploadId)": (
        f"mutation ($id: ID!, $own: ID!) {{ processDataset(input: {{datasetId: $own, uploadId: $id}}) {{ {INFO} }} }}"
    ),
    "cancelDatasetVersion(id)": f"mutation ($id: ID!) {{ cancelDatasetVersion(id: $id) {{ {INFO} }} }}",
    "startTrainingRun(input.datasetVersionId)": (
        f"mutation ($id: ID!) {{ startTrainingRun(input: {{datasetVersionId: $id}}) {{ {INFO} }} }}"
    ),
    "cancelTrainingRun(id)": f"mutation ($id: ID!) {{ cancelTrainingRun(id: $id) {{ {INFO} }} }}",
    "inviteMember(input.organizationId)": (
        f'mutation ($id: ID!) {{ inviteMember(input: {{organizationId: $id, email: "x@example.com"}}) {{ {INFO} }} }}'
    ),
    "changeMemberRole(input.organizationId)": (
        f"mutation ($id: ID!) {{ changeMemberRole(input: {{organizationId: $id, userId: $id, role: OWNER}}) {{ {INFO} }} }}"
    ),
    "changeMemberRole(input.userId)": (
        f"mutation ($id: ID!, $own: ID!) {{ changeMemberRole(input: {{organizationId: $own, userId: $id, role: OWNER}}) {{ {INFO} }} }}"
    ),
    "removeMember(input.organizationId)": (
        f"mutation ($id: ID!) {{ removeMember(input: {{organizationId: $id, userId: $id}}) {{ {INFO} }} }}"
    ),
    "removeMember(input.userId)": (
        f"mutation ($id: ID!, $own: ID!) {{ removeMember(input: {{organizationId: $own, userId: $id}}) {{ {INFO} }} }}"
    ),
    "createApiKey(input.organizationId)": (
        f'mutation ($id: ID!) {{ createApiKey(input: {{organizationId: $id, name: "k"}}) {{ {INFO} }} }}'
    ),
    "withdrawInvitation(id)": f"mutation ($id: ID!) {{ withdrawInvitation(id: $id) {{ {INFO} }} }}",
    "deleteOrganization(input.organizationId)": (
        f'mutation ($id: ID!) {{ deleteOrganization(input: {{organizationId: $id, password: "{PASSWORD}"}}) {{ {INFO} }} }}'
    ),
    "restoreOrganization(input.organizationId)": (
        f"mutation ($id: ID!) {{ restoreOrganization(input: {{organizationId: $id}}) {{ {INFO} }} }}"
    ),
    "revokeApiKey(id)": f"mutation ($id: ID!) {{ revokeApiKey(id: $id) {{ {INFO} }} }}",
    "predict(input.adapterId)": (
        f'mutation ($id: ID!) {{ predict(input: {{adapterId: $id, prompt: "def"}}) {{ {INFO} }} }}'
    ),
}
SUBSCRIPTIONS = {
    "datasetVersionEvents(id)": "subscription ($id: ID!) { datasetVersionEvents(id: $id) { sequence } }",
    "trainingRunEvents(id)": "subscription ($id: ID!) { trainingRunEvents(id: $id) { sequence } }",
    "generate(input.adapterId)": 'subscription ($id: ID!) { generate(input: {adapterId: $id, prompt: "def"}) { text } }',
}
LISTS = {"apiKeys": []}  # those that are no connections
NODES = [User, Organization, Invitation, ApiKey, AuditEntry, Upload, Dataset, DatasetVersion, TrainingRun, Adapter]
NOT_FOUND = {"kind": "ERROR", "code": "NOT_FOUND", "field": None, "message": "There is no such object."}


def id_arguments(root: GraphQLObjectType) -> set[str]:
    """Every argument of `root`'s fields that takes an id, those inside inputs included."""
    found = set()
    for field_name, field in root.fields.items():
        for name, argument in field.args.items():
            kind = get_named_type(argument.type)
            if kind.name == "ID":
                found.add(f"{field_name}({name})")
            elif isinstance(kind, GraphQLInputObjectType):
                found |= {f"{field_name}({inner})" for inner in _ids_within(name, kind)}
    return found


def _ids_within(path: str, kind: GraphQLInputObjectType) -> set[str]:
    found = set()
    for name, field in kind.fields.items():
        inner = get_named_type(field.type)
        if inner.name == "ID":
            found.add(f"{path}.{name}")
        elif isinstance(inner, GraphQLInputObjectType):
            found |= _ids_within(f"{path}.{name}", inner)
    return found


def foreign_ids(charlie: Person) -> list[str]:
    """An id of each kind of thing that is Charlie's."""
    adapter = make_adapter(charlie)
    with operator():
        run = TrainingRun.objects.select_related("dataset_version__dataset", "dataset_version__upload").get()
        rows = [adapter, run, run.dataset_version, run.dataset_version.dataset, run.dataset_version.upload]
    return [global_id(row) for row in [*rows, charlie.organization, charlie.user]]


def unknown_ids() -> list[str]:
    """Ids that never existed: well-formed ones of each type, of no type, and what is no id at all."""
    known = [relay.to_base64(node.__name__, uuid4()) for node in NODES]
    odd = [relay.to_base64("Nothing", "1"), relay.to_base64("Dataset", "1\x00")]
    odd += [relay.to_base64("Dataset", "9" * 5000), relay.to_base64("", "")]
    return [*known, *odd, "", "x", "\x00", "\ud800", "%", "'; --", str(uuid4()), "ü" * 1000, "=" * 7]


def counts() -> list[int]:
    with operator():
        return [model._default_manager.count() for model in NODES]


def test_every_argument_that_takes_an_id_is_in_this_matrix() -> None:
    whole = schema._schema
    assert whole.query_type and whole.mutation_type and whole.subscription_type
    assert id_arguments(whole.query_type) == set(QUERIES)
    assert id_arguments(whole.mutation_type) == set(MUTATIONS)
    assert id_arguments(whole.subscription_type) == set(SUBSCRIPTIONS)


def test_each_kind_of_node_is_in_this_matrix() -> None:
    node = schema._schema.type_map["Node"]
    kinds = {kind.name for kind in schema._schema.get_implementations(node).objects}  # type: ignore[arg-type]
    assert kinds == {model.__name__ for model in NODES}


@pytest.mark.parametrize("place", QUERIES)
def test_a_query_answers_null_or_nothing_to_all_alike(alice: Person, charlie: Person, place: str) -> None:
    answers = {json.dumps(alice.ask(QUERIES[place], id=one)) for one in foreign_ids(charlie) + unknown_ids()}
    field = place.partition("(")[0]
    is_list = field.endswith("s") or field == "auditLog"
    empty = LISTS.get(field, {"totalCount": 0, "edges": []}) if is_list else None
    assert [json.loads(answer) for answer in answers] == [{"data": {field: empty}}]


@pytest.mark.parametrize("place", MUTATIONS)
def test_a_mutation_finds_none_of_them_and_changes_nothing(alice: Person, charlie: Person, place: str) -> None:
    field = place.partition("(")[0]
    ids, variables = foreign_ids(charlie) + unknown_ids(), {}
    if "$own" in MUTATIONS[place]:
        own = make_upload(alice, b"x")
        with operator():
            dataset = Dataset.objects.create(organization=alice.organization, name="hers")
        chosen = {"createDataset": own, "processDataset": dataset}.get(field, alice.organization)
        variables = {"own": global_id(chosen)}
    before = counts()
    answers = {json.dumps(alice.ask(MUTATIONS[place], id=one, **variables)) for one in ids}
    assert [json.loads(answer) for answer in answers] == [
        {"data": {field: {"__typename": "OperationInfo", "messages": [NOT_FOUND]}}}
    ]
    assert counts() == before


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("place", SUBSCRIPTIONS)
def test_a_subscription_finds_none_of_them(place: str) -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")

    async def ask(one: str) -> str:
        results: Any = await schema.subscribe(
            SUBSCRIPTIONS[place], variable_values={"id": one}, context_value=Context(principal=alice.principal)
        )
        heard = [result async for result in results]
        return json.dumps([[error.formatted for error in result.errors or []] for result in heard])

    async def ask_all(ids: list[str]) -> set[str]:
        return {await ask(one) for one in ids}

    (answer,) = asyncio.run(ask_all(foreign_ids(charlie) + unknown_ids()))
    ((error,),) = json.loads(answer)
    assert (error["message"], error["extensions"]) == ("There is no such object.", {"code": "NOT_FOUND"})


def test_the_owner_finds_what_the_others_do_not(alice: Person, charlie: Person) -> None:
    """Or else the tests above would hold for a platform that finds nothing."""
    documents: dict[str, Callable[[Adapter], Any]] = {
        "adapter(id)": lambda adapter: adapter,
        "trainingRun(id)": lambda adapter: adapter.training_run,
        "datasetVersion(id)": lambda adapter: adapter.training_run.dataset_version,
        "dataset(id)": lambda adapter: adapter.training_run.dataset_version.dataset,
        "upload(id)": lambda adapter: adapter.training_run.dataset_version.upload,
        "organization(id)": lambda adapter: adapter.organization,
        "node(id)": lambda adapter: adapter.training_run.created_by,
    }
    adapter = make_adapter(charlie)
    with operator():
        ids = {place: global_id(reach(adapter)) for place, reach in documents.items()}
    for place, one in ids.items():
        (found,) = charlie.data(QUERIES[place], id=one).values()
        assert found, place
    assert charlie.data(QUERIES["node(id)"], id=ids["adapter(id)"])["node"] == {
        "__typename": "Adapter",
        "id": ids["adapter(id)"],
    }


def test_everybodys_lists_hold_their_own_only(alice: Person, charlie: Person) -> None:
    make_adapter(charlie)
    document = "{ organizations { name } datasets { totalCount } trainingRuns { totalCount } adapters { totalCount } }"
    nothing = {"totalCount": 0}
    assert alice.data(document) == {
        "organizations": [{"name": "Alice's"}],
        "datasets": nothing,
        "trainingRuns": nothing,
        "adapters": nothing,
    }
    assert [value for name, value in charlie.data(document).items() if name != "organizations"] == [
        {"totalCount": 1}
    ] * 3
