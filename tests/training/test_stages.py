"""Of each name one adapter is in production: promoted by what was measured on the same rows, or by force, and never two."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from accounts.models import AuditEntry
from common.tenancy import operator, tenant
from tests.cast import Person, make_person
from tests.rows import global_id, make_adapter, make_run
from training import actions
from training.models import Adapter

PROMOTE = """
mutation ($id: ID!, $force: Boolean! = false) { promoteAdapter(id: $id, force: $force) {
  __typename
  ... on Adapter { version stage }
  ... on OperationInfo { messages { kind code message } }
} }
"""
ARCHIVE = """
mutation ($id: ID!) { archiveAdapter(id: $id) {
  __typename
  ... on Adapter { version stage }
  ... on OperationInfo { messages { kind code message } }
} }
"""
PREDICT = """
mutation ($id: ID!) { predict(input: {adapterId: $id, prompt: "def", maxNewTokens: 1}) {
  __typename ... on OperationInfo { messages { kind code field message } }
} }
"""
DIGESTS = ["a" * 64, "b" * 64, "c" * 64]


def promote(person: Person, adapter: Adapter, **arguments: Any) -> dict[str, Any]:
    return person.data(PROMOTE, id=global_id(adapter), **arguments)["promoteAdapter"]


def archive(person: Person, adapter: Adapter) -> dict[str, Any]:
    return person.data(ARCHIVE, id=global_id(adapter))["archiveAdapter"]


def refusal(answer: dict[str, Any]) -> tuple[str, str, str]:
    assert answer["__typename"] == "OperationInfo", answer
    (message,) = answer["messages"]
    return message["kind"], message["code"], message["message"]


def stages() -> dict[str, str]:
    with operator():
        return {f"{each}": each.stage for each in Adapter.objects.all()}


def log() -> list[tuple[str, str, str, dict[str, Any]]]:
    with operator():
        entries = AuditEntry.objects.order_by("sequence")
        return [(each.actor, each.action, each.target, each.details) for each in entries]


def test_the_first_of_a_name_goes_into_production_unmeasured(bob: Person) -> None:
    adapter = make_adapter(bob)
    assert stages() == {"First:1": "CANDIDATE"}
    assert promote(bob, adapter) == {"__typename": "Adapter", "version": 1, "stage": "PRODUCTION"}
    said = {"digest": "d" * 64, "replaced": "", "forced": 0}
    entry = (f"user:{bob.user.pk}", "adapter.promote", f"adapter:{adapter.pk}", said)
    assert log() == [entry]
    assert promote(bob, adapter) == {"__typename": "Adapter", "version": 1, "stage": "PRODUCTION"}
    assert log() == [entry], "it was there already"


def test_one_that_is_no_worse_on_the_same_rows_takes_the_place_of_the_other(bob: Person) -> None:
    first = make_adapter(bob, digest=DIGESTS[0], stage="PRODUCTION", test_loss=0.5)
    second = make_adapter(
        bob, digest=DIGESTS[1], test_loss=1.25, production_digest=DIGESTS[0], production_test_loss=1.25
    )
    other = make_adapter(bob, make_run(bob, name="Other", status="SUCCEEDED"), stage="PRODUCTION")
    assert promote(bob, second)["stage"] == "PRODUCTION"
    assert stages() == {"First:1": "CANDIDATE", "First:2": "PRODUCTION", f"{other}": "PRODUCTION"}
    assert log()[-1][3] == {"digest": DIGESTS[1], "replaced": f"adapter:{first.pk}", "forced": 0}


def test_a_worse_one_is_refused_with_both_figures_and_nothing_changes_unless_forced(bob: Person) -> None:
    make_adapter(bob, digest=DIGESTS[0], stage="PRODUCTION", test_loss=2.0)
    worse = make_adapter(
        bob, digest=DIGESTS[1], test_loss=1.5, production_digest=DIGESTS[0], production_test_loss=1.4375
    )
    before = stages()
    kind, code, message = refusal(promote(bob, worse))
    assert (kind, code) == ("VALIDATION", "WORSE_THAN_PRODUCTION")
    assert message == (
        "First:2 is worse than First:1, which is in production: test loss 1.5 against 1.4375 on the same rows. "
        "Promote it with force if you want it all the same."
    )
    assert (stages(), log()) == (before, [])
    assert promote(bob, worse, force=True)["stage"] == "PRODUCTION"
    assert stages() == {"First:1": "CANDIDATE", "First:2": "PRODUCTION"}
    assert log()[-1][3]["forced"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"test_loss": 0.1},  # its run had none to measure
        {"test_loss": 0.1, "production_digest": DIGESTS[2], "production_test_loss": 9.0},  # it measured another one
        {"test_loss": None, "production_digest": DIGESTS[0]},  # there were no test rows
        {"test_loss": 0.1, "production_digest": DIGESTS[0], "production_test_loss": None},  # it could not be measured
    ],
)
def test_what_was_not_measured_beside_the_present_one_takes_force(bob: Person, fields: dict[str, Any]) -> None:
    make_adapter(bob, digest=DIGESTS[0], stage="PRODUCTION", test_loss=5.0)
    adapter = make_adapter(bob, digest=DIGESTS[1], **fields)
    kind, code, message = refusal(promote(bob, adapter))
    assert (kind, code) == ("VALIDATION", "NOT_COMPARED")
    assert "First:2 and First:1" in message and "with force" in message
    assert stages() == {"First:1": "PRODUCTION", "First:2": "CANDIDATE"}
    assert promote(bob, adapter, force=True)["stage"] == "PRODUCTION"


def test_the_way_back_is_judged_by_the_figures_of_the_way_there(bob: Person) -> None:
    first = make_adapter(bob, digest=DIGESTS[0], test_loss=0.1)
    better = make_adapter(
        bob, digest=DIGESTS[1], stage="PRODUCTION", test_loss=1.0, production_digest=DIGESTS[0], production_test_loss=2
    )
    _, code, message = refusal(promote(bob, first))
    assert code == "WORSE_THAN_PRODUCTION"
    assert "First:1 is worse than First:2" in message and "test loss 2 against 1 on the same rows" in message
    with operator():
        Adapter.objects.filter(pk=better.pk).update(test_loss=3.0)  # as it was promoted by force
    assert promote(bob, first)["stage"] == "PRODUCTION"


def test_the_same_weights_once_more_are_no_worse(bob: Person) -> None:
    make_adapter(bob, digest=DIGESTS[0], stage="PRODUCTION")
    assert promote(bob, make_adapter(bob, digest=DIGESTS[0]))["stage"] == "PRODUCTION"


def test_an_archived_one_answers_nobody_until_it_is_promoted(bob: Person, settings: Any) -> None:
    settings.INFERENCE_URL = "http://127.0.0.1:9"
    adapter = make_adapter(bob)
    assert archive(bob, adapter) == {"__typename": "Adapter", "version": 1, "stage": "ARCHIVED"}
    entry = (f"user:{bob.user.pk}", "adapter.archive", f"adapter:{adapter.pk}", {"digest": "d" * 64})
    assert log() == [entry]
    assert archive(bob, adapter)["stage"] == "ARCHIVED"
    assert log() == [entry]
    answer = bob.data(PREDICT, id=global_id(adapter))["predict"]
    assert answer["messages"] == [
        {
            "kind": "VALIDATION",
            "code": "ADAPTER_ARCHIVED",
            "field": "adapterId",
            "message": "First:1 is archived: ask another adapter, or have this one promoted.",
        }
    ]
    assert promote(bob, adapter)["stage"] == "PRODUCTION"
    answer = bob.data(PREDICT, id=global_id(adapter))["predict"]
    assert answer["messages"][0]["code"] == "INFERENCE_UNAVAILABLE"


def test_the_one_in_production_is_archived_once_another_has_its_place(bob: Person) -> None:
    first, second = make_adapter(bob, stage="PRODUCTION"), make_adapter(bob)
    kind, code, message = refusal(archive(bob, first))
    assert (kind, code) == ("VALIDATION", "ADAPTER_IN_PRODUCTION")
    assert "First:1 is in production: promote another adapter" in message
    assert (stages(), log()) == ({"First:1": "PRODUCTION", "First:2": "CANDIDATE"}, [])
    promote(bob, second)
    assert archive(bob, first)["stage"] == "ARCHIVED"
    assert stages() == {"First:1": "ARCHIVED", "First:2": "PRODUCTION"}


def test_a_viewer_changes_nothing_and_an_outsider_finds_nothing(alice: Person, vera: Person, charlie: Person) -> None:
    adapter = make_adapter(alice)
    for person, kind, code in ((vera, "PERMISSION", "NOT_ALLOWED"), (charlie, "ERROR", "NOT_FOUND")):
        for answer in (promote(person, adapter, force=True), archive(person, adapter)):
            assert refusal(answer)[:2] == (kind, code)
    assert (stages(), log()) == ({"First:1": "CANDIDATE"}, [])


def test_adapters_are_listed_by_their_stage(bob: Person) -> None:
    for stage in ("ARCHIVED", "PRODUCTION", "CANDIDATE"):
        make_adapter(bob, stage=stage)
    asked = "query ($stage: AdapterStage) { adapters(stage: $stage) { edges { node { version stage } } } }"
    for stage, versions in [("ARCHIVED", [1]), ("PRODUCTION", [2]), ("CANDIDATE", [3]), (None, [3, 2, 1])]:
        listed = bob.data(asked, stage=stage)["adapters"]["edges"]
        assert [edge["node"]["version"] for edge in listed] == versions


def test_postgresql_has_no_two_in_production(bob: Person) -> None:
    first = make_adapter(bob, stage="PRODUCTION")
    with pytest.raises(IntegrityError, match="adapter_in_production"), transaction.atomic():
        make_adapter(bob, stage="PRODUCTION")
    dora = make_person("Dora")
    elsewhere = make_adapter(dora, make_run(dora, name=first.name), stage="PRODUCTION")
    assert (elsewhere.name, stages()) == (first.name, {"First:1": "PRODUCTION"})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("present", [True, False])
def test_of_two_that_are_promoted_at_once_one_is_in_production(present: bool) -> None:
    """Each has committed before the other looks: a look before the lock would find the place free, or the first one there."""
    ada = make_person("Ada")
    present_one = make_adapter(ada, digest=DIGESTS[2], stage="PRODUCTION")
    rivals = [make_adapter(ada, digest=digest) for digest in DIGESTS[:2]]
    together = threading.Barrier(2, timeout=30)

    def put(adapter: Adapter) -> str:
        try:
            with tenant(ada.principal):
                together.wait()
                return str(actions.promote_adapter(actor=ada.principal, adapter=adapter, force=True).stage)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as both:
        for round_number in range(1, 6):
            with operator():
                Adapter.objects.update(stage="CANDIDATE")
                Adapter.objects.filter(pk=present_one.pk).update(stage="PRODUCTION" if present else "CANDIDATE")
            assert list(both.map(put, rivals)) == ["PRODUCTION", "PRODUCTION"]
            assert sorted(stages().values()) == ["CANDIDATE", "CANDIDATE", "PRODUCTION"]
            *_, one, last = log()
            with operator():
                found = Adapter.objects.get(stage="PRODUCTION")
            assert (last[2], last[3]["replaced"]) == (f"adapter:{found.pk}", one[2])
            assert len(log()) == 2 * round_number
