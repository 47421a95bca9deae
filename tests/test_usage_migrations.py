"""An installation that is older than the ledger: what it has stored and has running is entered when it migrates."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import UsageEntry
from common.ownership import as_owner
from common.tenancy import operator
from datasets.models import Upload
from tests.accounts.ledger import entries, used
from tests.cast import make_person
from tests.rows import make_adapter, make_run, make_upload, make_version

pytestmark = pytest.mark.django_db(transaction=True)


def migrate() -> None:
    """The steps that enter what is there, as the owner takes them."""
    with as_owner(), connection.cursor() as cursor:
        for app in ("datasets", "training"):
            (step,) = import_module(f"{app}.migrations.0004_usage").Migration.operations
            for statement in step.sql:
                cursor.execute(statement)


def test_what_is_there_already_is_entered() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    now = timezone.now()
    complete = make_upload(alice, b"12345")
    with operator():
        waiting = Upload.objects.create(organization=alice.organization, file_name="f", size_bytes=70)
        Upload.objects.create(organization=alice.organization, file_name="f", size_bytes=900, expires_at=now)
    version = make_version(alice, size_bytes=600)
    queued, running = make_run(alice, version), make_run(alice, version, status="RUNNING", started_at=now)
    ended = make_run(alice, version, status="SUCCEEDED", started_at=now - timedelta(seconds=90), finished_at=now)
    make_run(alice, version, status="CANCELLED", finished_at=now)
    adapter = make_adapter(charlie, size_bytes=8000)

    migrate()

    with operator():
        empty = Upload.objects.get(pk=version.upload_id)
    assert entries(alice) == {
        ("STORAGE_BYTES", f"upload:{complete.pk}"): 5,
        ("STORAGE_BYTES", f"upload:{waiting.pk}"): 70,
        ("STORAGE_BYTES", f"upload:{empty.pk}"): 0,
        ("STORAGE_BYTES", f"version:{version.pk}"): 600,
        ("RUNS", f"run:{queued.pk}"): 1,
        ("RUNS", f"run:{running.pk}"): 1,
        ("TRAINING_SECONDS", f"run:{ended.pk}"): 90,
    }
    assert ("STORAGE_BYTES", f"adapter:{adapter.pk}") in entries(charlie)
    assert (used(alice).storage_bytes, used(charlie).storage_bytes) == (675, 8000)
    with operator():
        lapsing = UsageEntry.objects.exclude(lapses_at=None).get()
    assert (lapsing.key, lapsing.lapses_at) == (f"upload:{waiting.pk}", waiting.expires_at)
