"""A version's page in the admin, its card and its export."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from accounts.models import User
from common import blobs
from common.tenancy import operator
from datasets import exports
from datasets.models import Dataset, DatasetVersion
from datasets.version_page import chart, short, step_row
from tests.cast import PASSWORD, Person
from tests.datasets.pipelines import lines, process
from tests.datasets.test_near_duplicates_step import text
from tests.rows import make_dataset, make_version

MAIL = "grace.hopper@navy.mil"
ROWS = [{"text": text()}, {"text": text(30) + " and more"}, {"text": f"<b>Ask</b> {MAIL}"}]


@pytest.fixture
def operations(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("ops@example.com", PASSWORD))
    return client


@pytest.fixture
def version(alice: Person, tmp_path: Path) -> DatasetVersion:
    """What the pipeline has left of four lines."""
    return stored(alice, tmp_path)


def stored(person: Person, folder: Path) -> DatasetVersion:
    made = process(
        folder / "attempt", lines(*ROWS, "{<i>"), "rows.jsonl", split={"train": 1, "validation": 0, "test": 0}
    )
    version = make_version(
        person,
        make_dataset(person, "Snippets"),
        **{name: made.result[name] for name in ("rows_in", "rows_kept", "steps", "pii_findings", "length_histograms")},
        splits=[{"name": name, "rows": rows, "bytes": 1_000} for name, rows in made.result["splits"].items()],
    )
    blobs.put_folder(f"{version.artefacts}/0001", made.folder, last="manifest.json")
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(storage_prefix=f"{version.artefacts}/0001")
        return DatasetVersion.objects.select_related("dataset", "upload").get(pk=version.pk)


def page(client: Client, version: DatasetVersion) -> str:
    answer = client.get(reverse("admin:datasets_datasetversion_change", args=[version.pk]))
    assert answer.status_code == 200
    return answer.content.decode()


def test_it_shows_steps_reasons_findings_and_lengths(operations: Client, version: DatasetVersion) -> None:
    shown = page(operations, version)
    assert 'aria-label="3 of 4 rows kept"' in shown
    for said in [
        "NOT_JSON 1",
        "NEAR_DUPLICATE 1",
        "EMAIL",
        "Histogram of the characters of text",
        "Histogram of the characters of row",
    ]:
        assert said in shown, said
    assert shown.count("<svg viewBox") == 2


def test_it_looks_into_the_files_and_nothing_in_them_is_markup(operations: Client, version: DatasetVersion) -> None:
    shown = page(operations, version)
    assert "&lt;b&gt;Ask&lt;/b&gt; EMAIL_" in shown and "{&lt;i&gt;" in shown
    assert "<b>Ask" not in shown and "{<i>" not in shown and MAIL not in shown
    assert "gr…@n….mil" in shown
    assert "2 rows; kept: line 2" in shown and "0.81 alike" in shown


def test_card_and_export_are_a_click_away(operations: Client, version: DatasetVersion) -> None:
    shown = page(operations, version)
    (address,) = re.findall(r'href="([^"]+/card/)"', shown)
    answer = operations.get(address)
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.content.decode().startswith("# Snippets, version 1")
    exported = re.findall(r'href="([^"]+/export/[^"]+)"', shown)
    assert len(exported) == 12
    answer = operations.get(exported[1].replace("&amp;", "&"))
    assert answer.status_code == 302 and answer["Location"].startswith("/downloads/")
    token = answer["Location"].removeprefix("/downloads/")
    named = exports.named_in(token)
    assert named is not None
    assert named[:4] == (version.organization_id, version.pk, "TRAIN", "JSONL")
    assert named[4] == f"user:{User.objects.get(email='ops@example.com').pk}"
    base = reverse("admin:datasets_datasetversion_export", args=[version.pk])
    for wrong in ("", "?format=XML", "?format=CSV&split=ALL"):
        assert operations.get(base + wrong).status_code == 404


def test_without_files_or_before_it_is_made_it_says_so(
    operations: Client, alice: Person, version: DatasetVersion
) -> None:
    running = make_version(alice, status="RUNNING")
    assert "Nothing before it is made." in page(operations, running)
    assert operations.get(reverse("admin:datasets_datasetversion_card", args=[running.pk])).status_code == 404
    blobs.delete_tree(version.artefacts)
    assert "Its files are not in storage." in page(operations, version)
    with operator():
        Dataset.objects.update(deleted_at="2026-01-01T00:00:00Z")
        DatasetVersion.objects.filter(pk=version.pk).update(storage_prefix="")
    assert "Its dataset was deleted." in page(operations, version)
    base = reverse("admin:datasets_datasetversion_export", args=[version.pk])
    assert operations.get(f"{base}?format=CSV").status_code == 404


def test_staff_who_may_not_look_at_versions_get_neither(client: Client, version: DatasetVersion) -> None:
    staff = User.objects.create_user("staff@example.com", PASSWORD, is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(content_type__app_label="training"))
    client.force_login(staff)
    for name in ("card", "export"):
        address = reverse(f"admin:datasets_datasetversion_{name}", args=[version.pk])
        assert client.get(f"{address}?format=CSV").status_code == 403


def test_bars_are_as_long_as_what_they_tell() -> None:
    step = {"rows_in": 400, "rows_kept": 100, "name": "pii"}
    assert step_row(step)["bar"] == {"width": 160, "kept": 40, "dropped": 120}
    assert step_row(step | {"rows_in": 0, "rows_kept": 0})["bar"] == {"width": 160, "kept": 0, "dropped": 0}
    bar = step_row(step | {"rows_in": 10_000, "rows_kept": 9_999})["bar"]
    assert (bar["kept"], bar["dropped"]) == (158, 2)
    bar = step_row(step | {"rows_in": 10_000, "rows_kept": 1})["bar"]
    assert (bar["kept"], bar["dropped"]) == (2, 158)
    bar = step_row(step | {"rows_in": 7, "rows_kept": 7})["bar"]
    assert (bar["kept"], bar["dropped"]) == (160, 0)
    bins = [
        {"at_least": 1, "at_most": 1, "rows": 1},
        {"at_least": 2, "at_most": 3, "rows": 0},
        {"at_least": 4, "at_most": 7, "rows": 900},
    ]
    drawn = chart({"field": "row", "bins": bins})
    assert [(bar["x"], bar["height"], bar["label"]) for bar in drawn["bars"]] == [
        (0, 1, "1"),
        (44, 0, "2"),
        (88, 90, "4"),
    ]
    assert [short(count) for count in (1, 512, 1024, 131_072, 1 << 20)] == ["1", "512", "1k", "128k", "1M"]


SAMPLES = """
query ($id: ID!, $first: Int! = 20, $kind: String) { datasetVersion(id: $id) {
  maskedPlaces(first: $first, kind: $kind) { kind line source field before after }
  duplicateClusters(first: $first) { line source excerpt size dropped { line source similarity excerpt keptExcerpt } }
  lengthHistograms { field rows shortest longest mean bins { atLeast atMost rows } }
} }
"""


def test_the_api_shows_the_same(alice: Person, charlie: Person, version: DatasetVersion) -> None:
    from tests.rows import global_id

    found = alice.data(SAMPLES, id=global_id(version))["datasetVersion"]
    (place,), (cluster,) = found["maskedPlaces"], found["duplicateClusters"]
    assert (place["kind"], place["line"], place["field"], place["before"]) == (
        "EMAIL",
        3,
        "text",
        "<b>Ask</b> gr…@n….mil",
    )
    assert (cluster["line"], cluster["size"], cluster["dropped"][0]["line"]) == (2, 2, 1)
    assert [each["field"] for each in found["lengthHistograms"]] == ["row", "text"]
    assert found["lengthHistograms"][0]["rows"] == 2
    assert MAIL not in json.dumps(found)
    for none in ({"first": 0}, {"kind": "PHONE"}, {"kind": "\x00"}):
        assert alice.data(SAMPLES, id=global_id(version), **none)["datasetVersion"]["maskedPlaces"] == []
    answer = alice.ask(SAMPLES, id=global_id(version), first=-1)
    assert [error["message"] for error in answer["errors"]] == ["first should be 0 or more."]
    assert charlie.data(SAMPLES, id=global_id(version)) == {"datasetVersion": None}
    with operator():
        DatasetVersion.objects.update(storage_prefix="t/older")
    found = alice.data(SAMPLES, id=global_id(version))["datasetVersion"]
    assert found["maskedPlaces"] == found["duplicateClusters"] == []
