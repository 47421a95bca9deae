"""A queue that keeps its length: each claimed job ends at once, and another of its organization is queued."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from django.db import connection

from accounts.models import Organization
from common.claims import claim
from common.jobs import JobStatus, Lease
from common.ownership import as_owner
from common.tenancy import operator, organizations_scope
from datasets.models import Dataset, DatasetVersion, Upload

ORGANIZATIONS = 200


class Queue:
    def __init__(self, organizations: str, jobs: str) -> None:
        with operator():
            tenants = Organization.objects.bulk_create(
                Organization(name=f"{number}", slug=f"o-{number}") for number in range(ORGANIZATIONS)
            )[: int(organizations)]
            datasets = Dataset.objects.bulk_create(Dataset(organization=tenant, name="d") for tenant in tenants)
            uploads = Upload.objects.bulk_create(
                Upload(organization=tenant, file_name="f", size_bytes=0) for tenant in tenants
            )
        self._parents = {
            tenant.pk: {"dataset": dataset, "upload": upload}
            for tenant, dataset, upload in zip(tenants, datasets, uploads, strict=True)
        }
        self._numbers = 0
        with operator():
            DatasetVersion.objects.bulk_create(
                [self._job(tenants[index % len(tenants)].pk) for index in range(int(jobs))], batch_size=1000
            )
        _gather_statistics()

    def measure(self, seconds: float) -> dict[str, Any]:
        """Claim for so long, alone; only the time inside `claim` counts."""
        queued_before, claimed, at = self._length(), [], [0.0]
        while at[-1] < seconds:
            begun = time.perf_counter()
            lease = claim(DatasetVersion, "benchmark")
            at.append(at[-1] + time.perf_counter() - begun)
            assert lease is not None, "jobs are queued, and none is running"
            claimed.append(lease.job_id)
            self._replace(lease)
        return {
            "claims": len(claimed),
            "distinct": len(set(claimed)),
            "claims_per_second": len(claimed) / at[-1],
            "half": at[len(claimed) // 2] / at[-1],
            "queued_before": queued_before,
            "queued_after": self._length(),
        }

    def _job(self, organization_id: UUID) -> DatasetVersion:
        self._numbers += 1
        return DatasetVersion(
            organization_id=organization_id,
            **self._parents[organization_id],
            number=self._numbers,
            recipe={},
            fingerprint="",
        )

    def _replace(self, lease: Lease) -> None:
        with organizations_scope([lease.organization_id]):
            DatasetVersion.objects.held(lease).move(JobStatus.CANCELLED)
            self._job(lease.organization_id).save(force_insert=True)

    def _length(self) -> int:
        with operator():
            return DatasetVersion.objects.queued().count()


def _gather_statistics() -> None:
    """Those that autovacuum has of a queue that did not come into being within a second."""
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
