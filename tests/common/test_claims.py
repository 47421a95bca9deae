"""Each job is claimed once, fairly, and never beyond an organization's cap."""

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from common.claims import claim
from common.jobs import JobStatus
from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion, Upload
from tests.cast import Person, make_person
from tests.processes import start_python

pytestmark = pytest.mark.django_db(transaction=True)

RACE = """
import sys
from common.claims import claim
from datasets.models import DatasetVersion
print("ready", flush=True)
while lease := claim(DatasetVersion, "racer"):
    print(lease.job_id, lease.fence, flush=True)
"""


def queue_versions(person: Person, count: int) -> list[DatasetVersion]:
    with operator():
        dataset = Dataset.objects.create(organization=person.organization, name="d")
        upload = Upload.objects.create(organization=person.organization, file_name="f", size_bytes=0)
        return [
            DatasetVersion.objects.create(
                organization=person.organization,
                dataset=dataset,
                upload=upload,
                number=number,
                recipe={},
                fingerprint="",
            )
            for number in range(1, count + 1)
        ]


def test_two_workers_racing_for_200_jobs_claim_each_once() -> None:
    people = [make_person(f"Racer{index}") for index in range(4)]
    queued = {str(version.pk) for person in people for version in queue_versions(person, 50)}
    racers = [start_python(RACE, CONCURRENT_VERSIONS="1000") for _ in range(2)]
    claimed = [racer.communicate(timeout=90)[0].split("\n")[1:-1] for racer in racers]
    assert all(claimed), "one of the two claimed nothing: that was no race"
    assert Counter(line for lines in claimed for line in lines) == Counter(f"{pk} 1" for pk in queued)


def test_an_organization_stays_within_its_cap_and_others_are_not_held_up(settings: Any) -> None:
    settings.CONCURRENT_VERSIONS = 2
    alice, charlie = make_person("Alice"), make_person("Charlie")
    queue_versions(alice, 5)
    queue_versions(charlie, 1)
    leases = [claim(DatasetVersion, "worker") for _ in range(4)]
    owners = Counter(lease.organization_id if lease else None for lease in leases)
    assert owners == {alice.organization.pk: 2, charlie.organization.pk: 1, None: 1}
    with operator():  # whoever ends one makes room for one
        hers = next(lease for lease in leases if lease and lease.organization_id == alice.organization.pk)
        DatasetVersion.objects.held(hers).move(JobStatus.CANCELLED)
    assert claim(DatasetVersion, "worker") is not None


def test_the_organization_with_the_fewest_running_goes_first() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    queue_versions(alice, 2)
    first = claim(DatasetVersion, "worker")
    queue_versions(charlie, 1)
    second = claim(DatasetVersion, "worker")
    assert first and second
    assert [first.organization_id, second.organization_id] == [alice.organization.pk, charlie.organization.pk]


def test_a_job_that_is_not_due_yet_is_left_alone() -> None:
    (version,) = queue_versions(make_person("Alice"), 1)
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(due_at=timezone.now() + timedelta(minutes=1))
    assert claim(DatasetVersion, "worker") is None


def test_a_claim_counts_the_attempt_raises_the_fence_and_is_logged() -> None:
    (version,) = queue_versions(make_person("Alice"), 1)
    lease = claim(DatasetVersion, "worker")
    assert lease and (lease.attempt, lease.fence) == (1, 1)
    with operator():
        claimed = DatasetVersion.objects.get(pk=version.pk)
        events = list(claimed.event_log.values_list("sequence", "kind", "data__status"))
    assert (claimed.status, claimed.lease_owner, claimed.unproductive_attempts) == ("RUNNING", "worker", 1)
    assert claimed.lease_until > timezone.now() + timedelta(seconds=50)
    assert events == [(1, "StatusChanged", "RUNNING")]


def test_a_write_with_an_older_fence_changes_nothing() -> None:
    (version,) = queue_versions(make_person("Alice"), 1)
    old = claim(DatasetVersion, "worker")
    assert old
    with operator():
        DatasetVersion.objects.held(old).move(JobStatus.QUEUED)
    new = claim(DatasetVersion, "another")
    assert new and new.fence == old.fence + 1
    with operator():
        before = DatasetVersion.objects.filter(pk=version.pk).values().get()
        assert DatasetVersion.objects.held(old).move(JobStatus.SUCCEEDED) is None
        assert DatasetVersion.objects.filter(pk=version.pk).values().get() == before


@pytest.mark.parametrize("ended", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_terminal_state_is_final(ended: JobStatus) -> None:
    queue_versions(make_person("Alice"), 1)
    lease = claim(DatasetVersion, "worker")
    assert lease
    with operator():
        assert DatasetVersion.objects.held(lease).move(ended) is not None
        for status in JobStatus:
            assert DatasetVersion.objects.held(lease).move(status) is None


def test_events_get_consecutive_sequences_also_from_concurrent_writers() -> None:
    (version,) = queue_versions(make_person("Alice"), 1)
    code = f"""
from common.events import Event
from common.tenancy import operator
from datasets.models import DatasetVersion
for _ in range(50):
    with operator():
        DatasetVersion.objects.filter(pk="{version.pk}").advance([Event("LogLine", {{"n": 1}}), Event("LogLine", {{"n": 2}})])
"""
    writers = [start_python(code) for _ in range(2)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    with operator():
        log = list(version.event_log.values_list("sequence", "data__n"))
    assert log == [(number, 2 - number % 2) for number in range(1, 201)]


def test_an_unknown_job_is_not_advanced() -> None:
    with operator():
        assert DatasetVersion.objects.filter(pk=uuid4()).move(JobStatus.CANCELLED) is None
