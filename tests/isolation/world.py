"""Two organizations that have everything, and whoever may ask for it. Each has its own word in all its texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import models
from django.utils import timezone
from strawberry import relay

from accounts import audit
from accounts.models import (
    ApiKey,
    AuditEntry,
    Invitation,
    Membership,
    Organization,
    Quota,
    Role,
    UsageEntry,
    User,
)
from accounts.tokens import issue_session, sha256_of
from accounts.usage_kinds import UsageKind
from common import blobs
from common.events import Event
from common.models import OutboxMessage
from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion, Hold, Upload, VersionReport
from datasets.pipeline.fingerprint import fingerprint
from datasets.pipeline.recipe import Recipe
from platform_site.schema import NODES
from tests.isolation.askers import Asker
from tests.isolation.catalog import rows, tenant_tables
from tests.isolation.files import CONTENT, store_files
from tests.rows import BASE, global_id
from tests.training.estimates import split
from training.models import Adapter, TokenCount, TrainingRun
from training.trainer.config import TrainingConfig

SHA256 = sha256_of(CONTENT.decode())
TOKENS = {"train": split([5]), "validation": split([]), "test": split([])}


@dataclass(frozen=True)
class Tenant:
    """An organization; `rows` has one of each kind of node, `word` is in all of its texts and in nobody else's."""

    organization: Organization
    word: str
    rows: dict[str, models.Model]
    waiting_upload: Upload

    def id_of(self, kind: str) -> str:
        return global_id(self.rows[kind])


@dataclass(frozen=True)
class World:
    ours: Tenant
    theirs: Tenant
    askers: dict[str, Asker]
    secrets: dict[str, frozenset[str]]
    """By an organization's word, what nobody else may read."""

    def others(self, asker: Asker) -> list[Tenant]:
        """The organizations that are none of the asker's."""
        return [tenant for tenant in (self.ours, self.theirs) if tenant is not asker.home]


def make_world() -> World:
    """To be committed: requests in other threads see it, too."""
    with operator():
        shared = _person("dora", "example")  # of both, so that neither's word is hers
        ours, theirs = _tenant("qzours", shared), _tenant("qztheirs", shared)
        askers = {asker.name: asker for asker in _askers(ours, theirs)}
        return World(ours, theirs, askers, {tenant.word: _secrets(tenant) for tenant in (ours, theirs)})


def _secrets(tenant: Tenant) -> frozenset[str]:
    """The organization's word, and the id of each of its rows, as the API and as the database spell it."""
    keys = {str(tenant.rows["User"].pk)}
    for name, table in tenant_tables().items():
        if "id" in table.columns:
            found = rows(f"SELECT id FROM {name} WHERE {table.tenant_column} = %s", tenant.organization.pk)
            keys |= {str(key) for (key,) in found if not isinstance(key, int)}
    return frozenset({tenant.word} | keys | {relay.to_base64(kind, key) for key in keys for kind in NODES})


def _askers(ours: Tenant, theirs: Tenant) -> Iterator[Asker]:
    yield Asker("anonymous", None)
    for role in Role:
        person = _member(ours, role.lower(), role)
        yield Asker(role.lower(), issue_session(person).access_token, ours, role)
        yield Asker(f"key of {role.lower()}", _key(ours, role), ours, role, is_key=True)
    removed = _person("removed", "example")
    Membership.objects.create(organization=ours.organization, user=removed, role=Role.OWNER)
    yield Asker("removed", issue_session(removed).access_token)
    Membership.objects.filter(user=removed).delete()
    stranger = _member(theirs, "outsider", Role.OWNER)
    yield Asker("outsider", issue_session(stranger).access_token, theirs, Role.OWNER)
    yield Asker("outsider's key", _key(theirs, Role.OWNER), theirs, Role.OWNER, is_key=True)


def _person(name: str, word: str) -> User:
    return User.objects.create(email=f"{name}@{word}.test", name=f"{name} {word}", password="!")


def _member(tenant: Tenant, name: str, role: Role) -> User:
    user = _person(name, tenant.word)
    Membership.objects.create(organization=tenant.organization, user=user, role=role)
    return user


def _key(tenant: Tenant, role: Role) -> str:
    secret = f"ftk_{tenant.word}-{role.lower()}"
    ApiKey.objects.create(
        organization=tenant.organization,
        name=f"{role} {tenant.word}",
        prefix=secret[:12],
        secret_sha256=sha256_of(secret),
        role=role,
    )
    return secret


def _tenant(word: str, shared: User) -> Tenant:
    """The same bytes are in both, and only the second has a version of them: the first's may not turn out to be it."""
    organization = Organization.objects.create(name=f"{word} Ltd", slug=word)
    of: dict[str, Any] = {"organization": organization}
    colleague = _person("colleague", word)
    for user in (colleague, shared):
        Membership.objects.create(**of, user=user, role=Role.MEMBER)
    by: dict[str, Any] = {**of, "created_by": colleague}
    complete = {"size_bytes": len(CONTENT), "sha256": SHA256, "completed_at": timezone.now()}
    upload = Upload.objects.create(
        **by, file_name=f"{word}.jsonl", **complete, storage_key=f"{blobs.key(organization.pk, 'uploads')}/{word}"
    )
    waiting = Upload.objects.create(**{**of, "created_by": shared}, file_name=f"{word} waits", size_bytes=1)
    dataset = Dataset.objects.create(**by, name=f"{word} snippets")
    version = _version(by, dataset, upload, word)
    run = _run({**of, "created_by": shared}, version, word)
    key = ApiKey.objects.create(**by, name=f"{word} key", prefix=f"ftk_{word}", secret_sha256=sha256_of(f"{word} key"))
    invitation = _mail_and_invite(by, word)
    Quota.objects.create(**of, storage_bytes=2**40)
    Hold.objects.create(**of, version=version, holder=f"run:{word}", label=f"training run {word}")
    UsageEntry.objects.create(**of, kind=UsageKind.STORAGE_BYTES, key=f"upload:{word}", amount=len(CONTENT))
    nodes = [organization, colleague, invitation, upload, dataset, version, run, _adapter(of, run, word), key]
    nodes.append(_audit_entry(organization.pk, word))
    return Tenant(organization, word, {type(row).__name__: row for row in nodes}, waiting)


def _version(by: dict[str, Any], dataset: Dataset, upload: Upload, word: str) -> DatasetVersion:
    step = {"name": word, "status": "DONE", "rows_in": 1, "rows_kept": 1, "rows_dropped": 0, "rows_changed": 0}
    recipe = Recipe()
    # the second organization's is what createDataset would find for these bytes, if it looked at everybody's
    hashed = fingerprint(SHA256, recipe) if word == "qztheirs" else "f" * 64
    version = DatasetVersion.objects.create(
        **by,
        dataset=dataset,
        upload=upload,
        number=1,
        recipe=recipe.to_json() | {"columns": {"text": word}},
        asked_recipe=recipe.to_json() | {"columns": {"text": word}},
        fingerprint=hashed,
        status="SUCCEEDED",
        steps=[{**step, "reasons": [{"key": word, "count": 1}], "seconds": 1.0}],
        splits=[{"name": "TRAIN", "rows": 1, "bytes": 1}],
        pii_findings=[{"key": word, "count": 1}],
        bias={"look_at": [word]},
        length_histograms=[
            {
                "field": word,
                "rows": 1,
                "shortest": 1,
                "longest": 1,
                "mean": 1.0,
                "bins": [{"at_least": 1, "at_most": 1, "rows": 1}],
            }
        ],
        storage_prefix=f"t/{by['organization'].pk}/versions/{word}",
        report_key=f"t/{by['organization'].pk}/reports/{word}",
        **_texts_of_a_job(word),
    )
    store_files(version.storage_prefix, word)
    report = VersionReport.objects.create(**by, version=version, status="SUCCEEDED", **_texts_of_a_job(word))
    _log(report, word)
    count = TokenCount.objects.create(
        **by,
        version=version,
        base_model_name=BASE,
        base_model_revision="1",
        splits=TOKENS,
        status="SUCCEEDED",
        **_texts_of_a_job(word),
    )
    _log(count, word)
    progress = {"name": word, "status": "RUNNING", "rows_in": 1, "rows_kept": 1, "progress": 0.5}
    _log(version, word, Event("StepProgressed", progress))
    return version


def _run(by: dict[str, Any], version: DatasetVersion, word: str) -> TrainingRun:
    run = TrainingRun.objects.create(
        **by,
        name=f"{word} run",
        dataset_version=version,
        base_model_name=BASE,
        base_model_revision="1",
        config=TrainingConfig().to_json(),
        status="SUCCEEDED",
        result={"where": word, "environment": {word: word}},
        checkpoint=f"{word}-checkpoint",
        checkpoint_step=1,
        checkpoint_bytes=1,
        **_texts_of_a_job(word),
    )
    step = {"step": 1, "total_steps": 1, "loss": 1.0, "learning_rate": 0.1}
    saved = {"step": 1, "size_bytes": 1, "sha256": word}
    line = {"level": "INFO", "text": word}
    sample = {"step": 1, "prompt": word, "continuation": word}
    _log(
        run,
        word,
        Event("StepLogged", step),
        Event("SampleGenerated", sample),
        Event("CheckpointSaved", saved),
        Event("LogLine", line),
    )
    return run


def _texts_of_a_job(word: str) -> dict[str, Any]:
    return {
        "error_code": word,
        "error_message": f"{word} went wrong",
        "lease_owner": word,
        "process": {"host": word},
        "finished_at": timezone.now(),
    }


def _log(job: Any, word: str, *events: Event) -> None:
    """An ended job's: a subscription to it completes."""
    ended = Event("StatusChanged", {"status": "SUCCEEDED", "reason": word})
    type(job).objects.filter(pk=job.pk).advance([*events, ended])


def _adapter(of: dict[str, Any], run: TrainingRun, word: str) -> Adapter:
    return Adapter.objects.create(
        **of,
        training_run=run,
        name=run.name,
        version=1,
        base_model_name=BASE,
        base_model_revision="1",
        digest="d" * 64,
        size_bytes=1,
        storage_prefix=f"{blobs.key(of['organization'].pk, 'adapters')}/{word}",
        card=f"# {word}",
    )


def _mail_and_invite(by: dict[str, Any], word: str) -> Invitation:
    invitation = Invitation.objects.create(
        organization=by["organization"],
        email=f"guest@{word}.test",
        role=Role.MEMBER,
        token_sha256=sha256_of(f"{word} invitation"),
        invited_by=by["created_by"],
        expires_at=timezone.now() + timedelta(days=1),
    )
    texts = {"event": f"{word}/1", "recipient": f"colleague@{word}.test", "subject": word, "body": word}
    OutboxMessage.objects.create(organization=by["organization"], last_error=word, **texts)
    return invitation


def _audit_entry(organization_id: UUID, word: str) -> AuditEntry:
    audit.record(organization_id, actor=f"user:{word}", action=f"{word}.do", target=f"thing:{word}", what=word)
    return AuditEntry.objects.get(organization_id=organization_id)
