"""What outlasts a request is held to one tenant, too: the tail that feeds a subscription, and a worker at its job."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common import tails
from common.events import Event, JobEvent
from common.jobs import JobStatus, Lease
from common.supervision import Work, work_through
from common.tenancy import operator
from common.threads import in_thread
from datasets.models import DatasetVersion
from tests.cast import Person
from tests.common.test_supervision import CHILDREN
from tests.isolation.askers import Asker
from tests.isolation.catalog import Table, rows, tenant_tables
from tests.isolation.catalog_expected import FEWER
from tests.isolation.world import Tenant, World, make_world
from tests.rows import global_id, make_run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fresh() -> World:
    return make_world()


def organizations_in_sight() -> dict[str, set[Any]]:
    """Whose rows the present scope sees, table by table, with SQL that names nobody."""

    def readable(table: Table) -> bool:
        return "SELECT" in FEWER.get(table.name, {"SELECT"})

    return {
        name: {key for (key,) in rows(f"SELECT DISTINCT {table.tenant_column} FROM {name}")}
        for name, table in tenant_tables().items()
        if readable(table)
    }


def of_this_only(tenant: Tenant) -> dict[str, set[Any]]:
    return {name: {tenant.organization.pk} for name, table in tenant_tables().items() if FEWER.get(name) != {"INSERT"}}


def test_a_worker_at_its_job_sees_its_tenant_alone(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback of its success runs with its rights; between its scopes it sees nothing at all."""
    monkeypatch.setenv("PYTHONPATH", str(CHILDREN))
    seen: list[Any] = []
    with operator():
        job = fresh.theirs.rows["DatasetVersion"]
        DatasetVersion.objects.filter(pk=job.pk).update(status=JobStatus.QUEUED, finished_at=None, lease_owner="")

    def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
        seen.append(organizations_in_sight())
        return Work(
            "steps", {"steps": 1, "rows": 1}, succeeded=lambda job, result: seen.append(organizations_in_sight())
        )

    work_through(DatasetVersion, prepare)
    nothing: dict[str, set[Any]] = {name: set() for name in of_this_only(fresh.theirs)}
    assert seen == [nothing, of_this_only(fresh.theirs)]
    with operator():
        assert DatasetVersion.objects.get(pk=job.pk).status == JobStatus.SUCCEEDED


def test_a_live_subscription_is_fed_from_its_tenant_alone(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While events come for both, each hears its own, from pages that were read in its own scope."""
    seen: dict[str, list[dict[str, set[Any]]]] = {}
    page = JobEvent.page.__func__  # type: ignore[attr-defined]

    def noted(cls: type[JobEvent], job: Any, after: int, limit: int) -> list[JobEvent]:
        seen.setdefault(str(job.organization_id), []).append(organizations_in_sight())
        found: list[JobEvent] = page(cls, job, after, limit)
        return found

    monkeypatch.setattr(JobEvent, "page", classmethod(noted))
    askers = [fresh.askers["owner"], fresh.askers["outsider"]]
    runs = [live_run(asker) for asker in askers]

    async def both() -> list[str]:
        listening = [asyncio.create_task(heard(asker, run)) for asker, run in zip(askers, runs, strict=True)]
        for number in range(5):
            for asker, run in zip(askers, runs, strict=True):
                await in_thread(partial(log, run, asker, is_last=number == 4))
            await asyncio.sleep(0.02)
        return await asyncio.wait_for(asyncio.gather(*listening), 20)

    try:
        ours, theirs = asyncio.run(both())
    finally:
        tails.forget()
    assert "qzours" in ours and "qztheirs" not in ours
    assert "qztheirs" in theirs and "qzours" not in theirs
    for tenant in (fresh.ours, fresh.theirs):
        assert all(sight == of_this_only(tenant) for sight in seen[str(tenant.organization.pk)])


def live_run(asker: Asker) -> Any:
    assert asker.home is not None
    colleague: Any = asker.home.rows["User"]
    person = Person(colleague, asker.home.organization, asker.role, "")  # type: ignore[arg-type]
    return make_run(person, asker.home.rows["DatasetVersion"], status="RUNNING")  # type: ignore[arg-type]


def log(run: Any, asker: Asker, is_last: bool) -> None:
    assert asker.home is not None
    with operator():
        jobs = type(run).objects.filter(pk=run.pk)
        jobs.advance([Event("LogLine", {"level": "INFO", "text": asker.home.word})])
        if is_last:
            jobs.move(JobStatus.SUCCEEDED)


async def heard(asker: Asker, run: Any) -> str:
    asked = "subscription ($id: ID!) { trainingRunEvents(id: $id) { sequence ... on LogLine { text } } }"
    return json.dumps(await asker.listen(asked, {"id": global_id(run)}))
