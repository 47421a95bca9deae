"""What a finished flow leaves behind: a row of each model that an organization can have."""

from __future__ import annotations

from accounts import mailed_tokens
from accounts.actions import keys, organizations
from accounts.models import MailedToken, Quota
from accounts.roles import Role
from accounts.usage import settle
from accounts.usage_kinds import UsageKind
from common.outbox import mail
from common.tenancy import operator
from datasets.holds import hold
from datasets.models import VersionReport
from tests.cast import Person
from tests.rows import make_adapter, make_dataset, make_run, make_version
from tests.training.estimates import device
from training.models import Adapter, TokenCount


def make_history(person: Person) -> Adapter:
    """An invitation, an API key, a quota, something used of it, an upload, a dataset, its version, that one's report and its rows counted in tokens, a run that holds it, the jobs' first events, a mail, a token in one, the adapter, and a device that trains."""
    name = f"{person.user.name}'s functions"
    device(host=f"trainer-of-{person.organization.slug}")
    version = make_version(person, make_dataset(person, name), rows_in=1204, rows_kept=1180)
    run = make_run(person, version, name=name, status="SUCCEEDED", step=120, total_steps=120, loss=1.214)
    with operator():
        mailed_tokens.issue(MailedToken.Purpose.VERIFY_EMAIL, person.user.email)
        organizations.invite_member(
            actor=person.principal,
            organization=person.organization,
            email=f"friend-of-{person.user.email}",
            role=Role.MEMBER,
        )
        keys.create_key(
            actor=person.principal, organization=person.organization, name="CI", role=Role.MEMBER, expires_at=None
        )
        Quota.objects.create(organization=person.organization, concurrent_runs=3)
        settle(person.organization.pk, UsageKind.STORAGE_BYTES, 12, key=f"version:{version.pk}")
        hold(version, holder=run.usage_key, label=f"training run {name}")
        version.created()
        report = VersionReport.objects.create(organization=person.organization, version=version, status="SUCCEEDED")
        report.created()
        count = TokenCount.objects.create(
            organization=person.organization,
            version=version,
            base_model_name=run.base_model_name,
            base_model_revision=run.base_model_revision,
            status="SUCCEEDED",
        )
        count.created()
        run.created()
        mail(
            event=f"training-run/{run.pk}/SUCCEEDED",
            recipient=person.user.email,
            template="training_run_succeeded",
            context={"job": run},
            organization_id=person.organization.pk,
        )
    return make_adapter(person, run, test_loss=1.31, base_test_loss=1.83)
