"""200 tenants with a hundred runs each. The first one's data goes through the pipeline; the others get copies of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import connection
from strawberry import relay

from accounts.actions.keys import create_key
from accounts.models import Membership, Organization, Role, User
from accounts.tokens import issue_session
from benchmarks.harness import told
from benchmarks.multiply import gather_statistics, multiply
from benchmarks.soak.mix import Tenant
from common import blobs
from common.ownership import as_owner
from common.tenancy import Principal, operator, organizations_scope
from datasets.models import DatasetVersion
from platform_site.demo import operations
from platform_site.demo.client import ENDED, Client
from training.models import TrainingRun
from training.trainer.config import TrainingConfig

RUNS_EACH = 100
PEOPLE_EACH = 2
EVENTS_EACH = 6
VERSION_S = 60.0
ROWS = b"".join(
    b'{"prompt": "def add_%d(value):\\n", "completion": "    return value + %d\\n"}\n' % (row, row) for row in range(50)
)


class Tenants:
    def __init__(self, url: str) -> None:
        self._url = url

    def fill(self, count: int) -> dict[str, Any]:
        """What the load has to know: the tenants by their ids, their clients' tokens, and how long a session's lives."""
        begun = time.monotonic()
        principals = [_organization(number) for number in range(count)]
        first = self._first_version(principals[0])
        tenants = [_tenant(principal, first) for principal in principals]
        runs = _runs()
        gather_statistics()
        told(tenants=count, runs=sum(map(len, runs.values())), seconds=time.monotonic() - begun)
        known = [asdict(Tenant(**tenant, runs=runs[tenant["organization"]])) for tenant in tenants]
        clients = [_clients(principal) for principal in principals]
        return {"tenants": known, "clients": clients, "token_s": _token_s()}

    def _first_version(self, principal: Principal) -> DatasetVersion:
        """Through the API, from the file to the version that a run can learn from."""
        with operator():
            session = issue_session(User.objects.get(pk=str(principal.user_id)))
        client = Client(self._url)
        client.use({"accessToken": session.access_token, "expiresAt": session.expires_at.isoformat()})
        file = Path(settings.HOME) / "rows.jsonl"
        file.write_bytes(ROWS)
        ticket = client.ask(operations.START_UPLOAD, input={"fileName": file.name, "sizeBytes": len(ROWS)})
        client.send_file(ticket["url"], dict(ticket["headers"]), file, lambda sent: None)
        wanted = {"name": "Functions", "uploadId": ticket["upload"]["id"], "recipe": {}}
        made = client.ask(operations.CREATE_DATASET, input=wanted)
        client.close()
        return _succeeded(UUID(relay.from_base64(made["id"])[1]))


def _organization(number: int) -> Principal:
    """A tenant with its people, as its owner."""
    with operator():
        organization = Organization.objects.create(name=f"Team {number}", slug=f"team-{number}")
        people = [User.objects.create(email=f"{index}@team-{number}.example.com") for index in range(PEOPLE_EACH)]
        for person in people:
            Membership.objects.create(organization=organization, user=person, role=Role.OWNER)
    return Principal(user_id=people[0].pk, roles={organization.pk: Role.OWNER.value})


def _succeeded(key: UUID) -> DatasetVersion:
    deadline = time.monotonic() + VERSION_S
    while time.monotonic() < deadline:
        with operator():
            version = DatasetVersion.objects.select_related("dataset", "upload").get(pk=key)
        if version.status in ENDED:
            assert version.status == "SUCCEEDED", (version.error_code, version.error_message)
            return version
        time.sleep(0.1)
    raise TimeoutError(f"The first dataset version has not ended within {VERSION_S:.0f} s.")


def _tenant(principal: Principal, first: DatasetVersion) -> dict[str, str]:
    """Its upload, dataset, version, and one run: the first tenant's, copied with their files."""
    (organization_id,) = principal.organizations
    with operator():
        if organization_id == first.organization_id:
            version = first
        else:
            version = _copied(first, organization_id, principal.user_id)
        TrainingRun.objects.create(
            organization_id=organization_id,
            name="run 0",
            created_by_id=principal.user_id,
            dataset_version=version,
            base_model_name="platform/python-small",
            base_model_revision="1",
            config=TrainingConfig().to_json(),
            status="SUCCEEDED",
            step=100,
            total_steps=100,
            loss=1.25,
            last_sequence=EVENTS_EACH,
        )
    return {
        "organization": relay.to_base64("Organization", organization_id),
        "dataset": relay.to_base64("Dataset", version.dataset_id),
        "version": relay.to_base64("DatasetVersion", version.pk),
        "upload": relay.to_base64("Upload", version.upload_id),
    }


def _copied(first: DatasetVersion, organization_id: UUID, user_id: UUID | None) -> DatasetVersion:
    mine: dict[str, Any] = {"organization_id": organization_id, "created_by_id": user_id}
    upload = _changed(first.upload, **mine, storage_key=blobs.key(organization_id, "uploads", uuid4(), "file"))
    version = _changed(first, **mine, upload=upload, dataset=_changed(first.dataset, **mine), save=False)
    version.storage_prefix = f"{version.artefacts}/0001"
    version.save(force_insert=True)
    stored = Path(settings.STORAGE_ROOT)
    for source, copy in (
        (first.upload.storage_key, upload.storage_key),
        (first.storage_prefix, version.storage_prefix),
    ):
        (stored / copy).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (stored / source).is_dir() else shutil.copy)(stored / source, stored / copy)
    return version


def _changed(row: Any, *, save: bool = True, **fields: Any) -> Any:
    """A copy of a row with a key of its own."""
    copy = type(row)(
        **{field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields if not field.primary_key}
    )
    for name, value in fields.items():
        setattr(copy, name, value)
    if save:
        copy.save(force_insert=True)
    return copy


def _runs() -> dict[str, list[str]]:
    """By organization, the ids of its runs, each with its events."""
    with operator():
        originals = list(TrainingRun.objects.values_list("pk", flat=True))
    older = "original.created_at - number * interval '1 minute'"
    multiply(
        TrainingRun.objects.filter(pk__in=originals), range(1, RUNS_EACH), created_at=older, name="'run ' || number"
    )
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO training_trainingrunevent (organization_id, job_id, sequence, at, kind, data)
            SELECT organization_id, id, number, created_at, 'StepLogged',
                jsonb_build_object('step', number, 'total_steps', 100, 'loss', 1.25, 'learning_rate', 0.0002)
            FROM training_trainingrun, generate_series(1, %s) number
            """,
            [EVENTS_EACH],
        )
        cursor.execute("SELECT organization_id, array_agg(id::text ORDER BY id) FROM training_trainingrun GROUP BY 1")
        return {
            relay.to_base64("Organization", organization): [relay.to_base64("TrainingRun", key) for key in keys]
            for organization, keys in cursor.fetchall()
        }


def _clients(principal: Principal) -> list[dict[str, Any]]:
    """Each person with a session, and a program with a key."""
    (organization_id,) = principal.organizations
    with operator():
        people = User.objects.filter(memberships__organization_id=organization_id).order_by("email")
        sessions = [issue_session(person) for person in people]
        organization = Organization.objects.get(pk=organization_id)
    with organizations_scope([organization_id]):
        key = create_key(actor=principal, organization=organization, name="CI", role=Role.MEMBER, expires_at=None)
    return [
        *(
            {
                "token": session.access_token,
                "refresh_token": session.refresh_token,
            }
            for session in sessions
        ),
        {"token": key.secret},
    ]


def _token_s() -> float:
    lifetime: Any = settings.SIMPLE_JWT["ACCESS_TOKEN_LIFETIME"]
    return float(lifetime.total_seconds())
