"""A flood of one organization holds nobody else up. Time is counted in claims, so that no machine is too slow for this."""

from collections import deque
from statistics import median
from uuid import UUID

import pytest

from accounts.models import Organization
from common.claims import claim
from common.jobs import JobStatus, Lease
from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion, Upload

pytestmark = pytest.mark.django_db(transaction=True)

OTHERS = 199
FLOOD = 5_000


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_nobody_waits_more_than_three_times_the_median_under_anothers_flood(workers: int) -> None:
    flooding, *others = organizations(1 + OTHERS)
    queue(flooding, FLOOD)
    for other in others:
        queue(other, 1)
    waits: dict[UUID, int] = {}
    running: deque[Lease] = deque()
    for now in range(5 * OTHERS):
        if len(running) == workers:
            end(running.popleft())
        lease = claim(DatasetVersion, "worker")
        assert lease is not None
        running.append(lease)
        if lease.organization_id != flooding.pk:
            waits[lease.organization_id] = now
        if len(waits) == OTHERS:
            break
    assert waits.keys() == {other.pk for other in others}
    assert max(waits.values()) <= 3 * median(waits.values())


def organizations(count: int) -> list[Organization]:
    with operator():
        return Organization.objects.bulk_create(
            Organization(name=f"{number}", slug=f"o-{number}") for number in range(count)
        )


def queue(organization: Organization, count: int) -> None:
    with operator():
        dataset = Dataset.objects.create(organization=organization, name="d")
        upload = Upload.objects.create(organization=organization, file_name="f", size_bytes=0)
        DatasetVersion.objects.bulk_create(
            DatasetVersion(
                organization=organization, dataset=dataset, upload=upload, number=number, recipe={}, fingerprint=""
            )
            for number in range(count)
        )


def end(lease: Lease) -> None:
    with operator():
        DatasetVersion.objects.held(lease).move(JobStatus.SUCCEEDED)
