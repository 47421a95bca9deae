"""Files in storage that a transfer left which died before its upload could name them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common import blobs
from common.tenancy import operator
from datasets.models import Upload
from datasets.schedules import remove_bytes_that_no_upload_waits_for, remove_files_that_no_upload_names
from tests.cast import Person, make_person
from tests.rows import make_upload

pytestmark = pytest.mark.django_db(transaction=True)


def stored(person: Person, upload: Upload, age_s: float) -> str:
    """A key of the upload, whose bytes came into storage so long ago."""
    key = blobs.key(person.organization.pk, "uploads", upload.pk, uuid4().hex)
    default_storage.save(key, ContentFile(b"x"))
    then = time.time() - age_s
    os.utime(Path(settings.STORAGE_ROOT) / key, (then, then))
    return key


def test_what_no_upload_names_goes_after_an_hour_and_all_else_stays() -> None:
    alice, bob = make_person("Alice"), make_person("Bob")
    strays, kept = [], []
    for person in (alice, bob):
        upload = make_upload(person)
        named = stored(person, upload, 7200)
        with operator():
            Upload.objects.filter(pk=upload.pk).update(storage_key=named)
        strays += [stored(person, upload, 3700), stored(person, Upload(), 3700)]
        kept += [named, stored(person, upload, 3500)]  # the last: its transfer may be just about to say so
    artefact = blobs.key(alice.organization.pk, "versions", uuid4(), "0001", "manifest.json")
    default_storage.save(artefact, ContentFile(b"x"))
    then = time.time() - 7200
    os.utime(Path(settings.STORAGE_ROOT) / artefact, (then, then))
    remove_files_that_no_upload_names()
    assert [default_storage.exists(key) for key in strays] == [False] * 4
    assert [default_storage.exists(key) for key in [*kept, artefact]] == [True] * 5


def test_a_query_is_asked_for_a_thousand_keys() -> None:
    alice = make_person("Alice")
    upload = make_upload(alice)
    for _ in range(20):
        stored(alice, upload, 0)
    with CaptureQueriesContext(connection) as queries:
        remove_files_that_no_upload_names()
    assert len([query for query in queries if "datasets_upload" in query["sql"]]) == 1


def test_a_transfer_that_has_not_gone_on_for_an_hour_goes() -> None:
    upload = make_upload(make_person("Alice"))
    incoming = Path(settings.INCOMING_ROOT)
    incoming.mkdir()
    old, new, stray = (incoming / name for name in (f"{upload.pk}.old", f"{upload.pk}.new", "stray"))
    for path, age_s in [(old, 3700), (new, 3500), (stray, 3700)]:
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    remove_bytes_that_no_upload_waits_for()
    assert [path.exists() for path in (old, new, stray)] == [False, True, False]
