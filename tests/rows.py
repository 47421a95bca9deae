"""Rows for tests to start from, without the work that makes them."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import uuid4

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import models
from django.utils import timezone
from strawberry import relay

from common import blobs
from common.tenancy import operator
from datasets.files import MANIFEST
from datasets.models import Dataset, DatasetVersion, Upload
from datasets.pipeline.recipe import Recipe
from tests.cast import Person
from training.models import Adapter, TrainingRun
from training.trainer.config import TrainingConfig

BASE = "platform/python-small"


def global_id(row: models.Model) -> str:
    return relay.to_base64(type(row).__name__, row.pk)


def make_upload(person: Person, content: bytes = b"", file_name: str = "rows.jsonl") -> Upload:
    """A complete upload, its bytes in storage."""
    key = blobs.key(person.organization.pk, "uploads", uuid4().hex)
    default_storage.save(key, ContentFile(content))
    with operator():
        return Upload.objects.create(
            organization=person.organization,
            created_by=person.user,
            file_name=file_name,
            size_bytes=len(content),
            received_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            completed_at=timezone.now(),
            storage_key=key,
        )


def make_dataset(person: Person, name: str = "Snippets") -> Dataset:
    with operator():
        return Dataset.objects.create(organization=person.organization, created_by=person.user, name=name)


def make_version(person: Person, dataset: Dataset | None = None, **fields: Any) -> DatasetVersion:
    dataset, upload = dataset or make_dataset(person), make_upload(person)
    with operator():
        return DatasetVersion.objects.create(
            **{
                "organization": person.organization,
                "created_by": person.user,
                "dataset": dataset,
                "upload": upload,
                "number": DatasetVersion.next_number(dataset.pk),
                "recipe": Recipe().to_json(),
                "fingerprint": "f" * 64,
                "status": "SUCCEEDED",
                **fields,
            }
        )


def stored_version(person: Person) -> DatasetVersion:
    """A version whose manifest is in storage, and names no files."""
    prefix = blobs.key(person.organization.pk, "datasets", uuid4().hex)
    default_storage.save(f"{prefix}/{MANIFEST}", ContentFile(b'{"files": []}'))
    return make_version(person, storage_prefix=prefix)


def make_run(person: Person, version: DatasetVersion | None = None, **fields: Any) -> TrainingRun:
    version = version or make_version(person)
    with operator():
        return TrainingRun.objects.create(
            **{
                "organization": person.organization,
                "created_by": person.user,
                "name": "First",
                "dataset_version": version,
                "base_model_name": BASE,
                "base_model_revision": "1",
                "config": TrainingConfig().to_json(),
                **fields,
            }
        )


def make_adapter(person: Person, run: TrainingRun | None = None, **fields: Any) -> Adapter:
    run = run or make_run(person, status="SUCCEEDED")
    with operator():
        return Adapter.objects.create(
            **{
                "organization": person.organization,
                "training_run": run,
                "name": run.name,
                "version": Adapter.next_version(person.organization.pk, run.name),
                "base_model_name": run.base_model_name,
                "base_model_revision": run.base_model_revision,
                "digest": "d" * 64,
                "size_bytes": 1,
                "storage_prefix": blobs.key(person.organization.pk, "adapters", run.pk, "0001"),
                "card": "# A card",
                **fields,
            }
        )
