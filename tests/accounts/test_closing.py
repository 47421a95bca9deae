"""An organization that is to be deleted: until then it is looked at, nothing in it changes or begins, and it can be restored."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.actions import keys, organizations
from accounts.actions.closing import close_organization
from accounts.models import Invitation, Membership, Organization, Role
from accounts.principals import principal_of
from common.claims import claim
from common.diagnosis import Diagnosis
from common.jobs import JobStatus
from common.keeper import ring_for_due
from common.queues import rings_unheard
from common.tenancy import operator, tenant
from datasets.models import DatasetVersion
from tests.accounts.closed import delete, fresh, let_the_grace_period_pass, log_of, refusal, restore
from tests.accounts.mailbox import mails_to, subjects_to
from tests.cast import PASSWORD, Person, make_person
from tests.rows import global_id, make_adapter, make_dataset, make_run, make_upload, make_version
from training.models import TrainingRun

INFO = "__typename ... on OperationInfo { messages { code } }"


def test_an_owner_has_it_deleted_and_its_members_are_told(alice: Person, bob: Person, charlie: Person) -> None:
    answer = delete(alice)
    organization = fresh(alice.organization)
    assert organization.closes_at is not None
    assert answer == {"__typename": "Organization", "status": "CLOSING", "closesAt": organization.closes_at.isoformat()}
    assert timedelta(days=6.99) < organization.closes_at - timezone.now() <= timedelta(days=7)
    for person in (alice, bob):
        (mail,) = mails_to(person.user.email)
        assert mail.subject == '"Alice\'s" is about to be deleted'
        assert f"{organization.closes_at:%Y-%m-%d} at {organization.closes_at:%H:%M} UTC" in mail.body
        assert f'restoreOrganization(input: {{organizationId: "{global_id(organization)}"}})' in mail.body
    assert mails_to(charlie.user.email) == []
    target = f"organization:{organization.pk}"
    assert log_of(organization.pk) == [("organization.close", f"user:{alice.user.pk}", target)]


def test_an_owner_restores_it_and_its_members_are_told(alice: Person, bob: Person) -> None:
    delete(alice)
    assert restore(alice) == {"__typename": "Organization", "status": "ACTIVE", "closesAt": None}
    assert fresh(alice.organization).closes_at is None
    assert subjects_to(bob.user.email)[1:] == ['"Alice\'s" is not deleted after all']
    assert [entry[0] for entry in log_of(alice.organization.pk)] == ["organization.close", "organization.restore"]
    assert restore(alice) == refusal("NOT_CLOSING", "VALIDATION")
    assert delete(alice)["__typename"] == "Organization"


def test_the_password_is_asked_once_more(alice: Person) -> None:
    assert delete(alice, "not her password") == refusal("WRONG_CREDENTIALS", field="password")
    assert fresh(alice.organization).closes_at is None
    assert mails_to(alice.user.email) == []
    assert log_of(alice.organization.pk) == [("password.refuse", f"user:{alice.user.pk}", "")]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.MEMBER, Role.VIEWER])
def test_who_is_no_owner_neither_deletes_nor_restores(alice: Person, role: Role) -> None:
    other = make_person("Other", alice.organization, role)
    not_allowed = refusal("NOT_ALLOWED", "PERMISSION")
    assert delete(other) == not_allowed
    assert fresh(alice.organization).closes_at is None
    delete(alice)
    assert restore(other) == not_allowed
    assert fresh(alice.organization).closes_at is not None


def test_no_key_deletes_or_restores(alice: Person) -> None:
    with tenant(alice.principal):
        alice.token = keys.create_key(
            actor=alice.principal, organization=alice.organization, name="CI", role=Role.OWNER, expires_at=None
        ).secret
    not_allowed = refusal("NOT_ALLOWED", "PERMISSION")
    assert (delete(alice), restore(alice)) == (not_allowed, not_allowed)
    assert fresh(alice.organization).closes_at is None


def test_it_is_deleted_once_only(alice: Person) -> None:
    delete(alice)
    closes_at = fresh(alice.organization).closes_at
    assert delete(alice) == refusal("ORGANIZATION_CLOSING")
    assert fresh(alice.organization).closes_at == closes_at


def test_what_is_over_is_not_restored(alice: Person) -> None:
    delete(alice)
    let_the_grace_period_pass()
    assert restore(alice) == refusal("GRACE_PERIOD_OVER", "VALIDATION")
    assert fresh(alice.organization).closes_at is not None


def mutations(alice: Person, bob: Person) -> dict[str, str]:
    """Each mutation that changes something in an organization, with input that it would accept."""
    adapter, queued = make_adapter(alice), make_version(alice, status="QUEUED")
    run, upload = make_run(alice, queued), make_upload(alice, b"{}")
    ended = make_run(
        alice, queued, status="FAILED", checkpoint="0001-checkpoint", checkpoint_step=1, checkpoint_bytes=1
    )
    with operator():
        key = keys.ApiKey.objects.create(
            organization=alice.organization, name="k", prefix="ftk_", secret_sha256="0", role=Role.MEMBER
        )
        invitation = Invitation.objects.create(
            organization=alice.organization, email="x@example.com", role="VIEWER", expires_at=timezone.now()
        )
        version = TrainingRun.objects.select_related("dataset_version").get(pk=adapter.training_run_id).dataset_version
    organization, him = f'organizationId: "{global_id(alice.organization)}"', f'userId: "{global_id(bob.user)}"'
    inputs = {
        "startUpload": f'input: {{{organization}, fileName: "f", sizeBytes: 1}}',
        "deleteUpload": f'id: "{global_id(make_upload(alice))}"',
        "createDataset": f'input: {{{organization}, name: "d", uploadId: "{global_id(upload)}"}}',
        "processDataset": f'input: {{datasetId: "{global_id(make_dataset(alice))}", uploadId: "{global_id(upload)}"}}',
        "cancelDatasetVersion": f'id: "{global_id(queued)}"',
        "deleteDataset": f'id: "{global_id(make_dataset(alice))}"',
        "startTrainingRun": f'input: {{datasetVersionId: "{global_id(version)}"}}',
        "estimateTrainingRun": f'input: {{datasetVersionId: "{global_id(version)}"}}',
        "cancelTrainingRun": f'id: "{global_id(run)}"',
        "resumeTrainingRun": f'id: "{global_id(ended)}"',
        "promoteAdapter": f'id: "{global_id(adapter)}"',
        "archiveAdapter": f'id: "{global_id(adapter)}"',
        "predict": f'input: {{adapterId: "{global_id(adapter)}", prompt: "def"}}',
        "inviteMember": f'input: {{{organization}, email: "y@example.com"}}',
        "withdrawInvitation": f'id: "{global_id(invitation)}"',
        "changeMemberRole": f"input: {{{organization}, {him}, role: VIEWER}}",
        "removeMember": f"input: {{{organization}, {him}}}",
        "createApiKey": f'input: {{{organization}, name: "k"}}',
        "revokeApiKey": f'id: "{global_id(key)}"',
        "deleteOrganization": f'input: {{{organization}, password: "{PASSWORD}"}}',
    }
    batch = f'input: {{requests: [{{adapterId: "{global_id(adapter)}", prompt: "def"}}]}}'
    return {name: f"mutation {{ answer: {name}({given}) {{ {INFO} }} }}" for name, given in inputs.items()} | {
        "predictBatch": f"mutation {{ answer: predictBatch({batch}) {{ ... on PredictionBatch {{ results {{ {INFO} }} }} }} }}"
    }


def rows() -> list[Any]:
    with operator():
        counted = [
            model.objects.count() for model in (Membership, Invitation, keys.ApiKey, DatasetVersion, TrainingRun)
        ]
        return [*counted, sorted(TrainingRun.objects.values_list("status", flat=True))]


def test_nothing_in_it_changes(alice: Person, bob: Person) -> None:
    documents = mutations(alice, bob)
    delete(alice)
    before = rows()
    answers = {name: alice.data(document)["answer"] for name, document in documents.items()}
    (answers["predictBatch"],) = answers["predictBatch"]["results"]
    closing = {"__typename": "OperationInfo", "messages": [{"code": "ORGANIZATION_CLOSING"}]}
    assert {name: answer for name, answer in answers.items() if answer != closing} == {}
    assert rows() == before


def test_no_mutation_of_an_organization_is_missing_above(alice: Person, bob: Person) -> None:
    from platform_site.schema import schema

    assert schema._schema.mutation_type
    ours = {"signup", "login", "refreshToken", "logout", "verifyEmail", "changePassword", "requestPasswordReset"}
    ours |= {"resetPassword", "deleteAccount", "acceptInvitation", "restoreOrganization"}  # with tests of their own
    assert set(mutations(alice, bob)) == set(schema._schema.mutation_type.fields) - ours


def test_the_request_that_closes_it_changes_nothing_more_in_it(alice: Person) -> None:
    document = f"""mutation ($o: ID!) {{
      closed: deleteOrganization(input: {{organizationId: $o, password: "{PASSWORD}"}}) {{ {INFO} }}
      asked: startUpload(input: {{organizationId: $o, fileName: "f", sizeBytes: 1}}) {{ {INFO} }}
      restored: restoreOrganization(input: {{organizationId: $o}}) {{ {INFO} }}
      again: startUpload(input: {{organizationId: $o, fileName: "f", sizeBytes: 1}}) {{ {INFO} }} }}"""
    answer = alice.data(document, o=global_id(alice.organization))
    assert {name: value["__typename"] for name, value in answer.items()} == {
        "closed": "Organization",
        "asked": "OperationInfo",
        "restored": "Organization",
        "again": "UploadTicket",
    }


def test_a_key_changes_nothing_either(alice: Person) -> None:
    with tenant(alice.principal):
        key = keys.create_key(
            actor=alice.principal, organization=alice.organization, name="CI", role=Role.ADMIN, expires_at=None
        )
    delete(alice)
    assert principal_of(key.secret).closing == {alice.organization.pk}
    alice.token = key.secret
    answer = alice.data(f'mutation {{ startUpload(input: {{fileName: "f", sizeBytes: 1}}) {{ {INFO} }} }}')
    assert answer["startUpload"]["messages"] == [{"code": "ORGANIZATION_CLOSING"}]
    asked = alice.data(f'mutation {{ predict(input: {{prompt: "def"}}) {{ {INFO} }} }}')
    assert asked["predict"]["messages"] == [{"code": "ORGANIZATION_CLOSING"}]


def test_another_organization_of_theirs_goes_on(alice: Person) -> None:
    with operator():
        other = Organization.objects.create(name="Other", slug="other")
        Membership.objects.create(organization=other, user=alice.user, role=Role.OWNER)
    delete(alice)
    document = (
        f'mutation ($o: ID!) {{ startUpload(input: {{organizationId: $o, fileName: "f", sizeBytes: 1}}) {{ {INFO} }} }}'
    )
    assert alice.data(document, o=global_id(other))["startUpload"]["__typename"] == "UploadTicket"


def test_it_is_looked_at_as_before(alice: Person) -> None:
    make_adapter(alice)
    document = """query ($o: ID!) { organization(id: $o) { name status members { role } invitations { email } }
      trainingRuns { totalCount } adapters { totalCount } apiKeys(organizationId: $o) { name }
      auditLog(organizationId: $o) { edges { node { action } } } }"""
    before = alice.data(document, o=global_id(alice.organization))
    delete(alice)
    after = alice.data(document, o=global_id(alice.organization))
    assert after == {
        **before,
        "organization": {**before["organization"], "status": "CLOSING"},
        "auditLog": {"edges": [{"node": {"action": "organization.close"}}]},
    }


def test_nobody_joins_it_until_it_is_restored(alice: Person, charlie: Person) -> None:
    with tenant(alice.principal):
        organizations.invite_member(
            actor=alice.principal, organization=alice.organization, email="charlie@example.com", role=Role.VIEWER
        )
    (token,) = re.findall(r"^    ([\w-]{43})$", mails_to("charlie@example.com")[0].body, re.MULTILINE)
    accept = f'mutation {{ acceptInvitation(input: {{token: "{token}"}}) {{ {INFO} }} }}'
    delete(alice)
    refused = charlie.data(accept)["acceptInvitation"]
    assert refused == {"__typename": "OperationInfo", "messages": [{"code": "ORGANIZATION_CLOSING"}]}
    restore(alice)
    assert charlie.data(accept)["acceptInvitation"]["__typename"] == "Membership"


def test_to_know_of_it_costs_no_query(alice: Person) -> None:
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            principal = principal_of(alice.token)
        counts.append((len(queries), principal.closing))
        delete(alice)
    (before, none), (after, closing) = counts
    assert (before, none, closing) == (after, frozenset(), {alice.organization.pk})


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quiet_queues")
def test_nothing_is_begun_in_it_and_what_was_queued_goes_on_once_it_is_restored() -> None:
    alice = make_person("Alice")
    run = make_run(alice)
    delete(alice)
    assert claim(TrainingRun, "worker") is None
    with operator():
        diagnosis = Diagnosis(TrainingRun)
        job = diagnosis.jobs().get()
    assert (job.status, job.cause, job.is_stuck) == ("QUEUED", "CLOSING", False)
    assert diagnosis.why(job) == "its organization is about to be deleted, and nothing in it is begun"
    ring_for_due(TrainingRun)
    assert rings_unheard("training") == 0
    restore(alice)
    ring_for_due(TrainingRun)
    assert rings_unheard("training") == 1
    lease = claim(TrainingRun, "worker")
    assert lease and lease.job_id == run.pk


@pytest.mark.django_db(transaction=True)
def test_a_claim_that_has_looked_before_finds_it_closed_under_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    from common import claims

    alice = make_person("Alice")
    make_run(alice)
    lock = claims._lock

    def close_first(model: type[TrainingRun], organization_id: Any) -> None:
        close_organization(actor=alice.principal, organization=alice.organization)
        lock(model, organization_id)

    monkeypatch.setattr(claims, "_lock", close_first)
    assert claim(TrainingRun, "worker") is None
    assert fresh(alice.organization).closes_at is not None


@pytest.mark.django_db(transaction=True)
def test_what_runs_already_may_finish() -> None:
    alice = make_person("Alice")
    run = make_run(alice)
    lease = claim(TrainingRun, "worker")
    assert lease and lease.job_id == run.pk
    delete(alice)
    with operator():
        assert TrainingRun.objects.held(lease).move(JobStatus.SUCCEEDED) is not None


def test_the_grace_period_is_the_installations(alice: Person, settings: Any) -> None:
    settings.CLOSING_DAYS = 0
    delete(alice)
    closes_at = fresh(alice.organization).closes_at
    assert closes_at is not None and closes_at <= timezone.now()
    assert restore(alice) == refusal("GRACE_PERIOD_OVER", "VALIDATION")


def test_an_unknown_organization_is_not_found(alice: Person) -> None:
    alice.organization = Organization(pk=uuid4())
    assert (delete(alice), restore(alice)) == (refusal("NOT_FOUND"), refusal("NOT_FOUND"))
