"""A version's HTML report: made after it, by a process of its own, of a sample, without a network, and harmless to show."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.conf import settings as django_settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from common import blobs
from common.jobs import JobStatus, Lease
from common.supervision import Refused
from common.tenancy import operator
from datasets import links, reporting
from datasets.deletion import remove_bytes_of_deleted_datasets
from datasets.models import DatasetVersion, VersionReport
from datasets.pipeline.rows import ROWS
from datasets.report.sample import sample
from datasets.tasks import work
from tests.browser import browsing
from tests.cast import Person
from tests.datasets.pipelines import lines, process
from tests.datasets.reports import order_report, report_alone
from tests.rows import global_id, make_dataset, make_upload, make_version, stored_version
from tests.web import serving

CREATE = """mutation ($input: CreateDatasetInput!) { createDataset(input: $input) { ... on DatasetVersion { id } } }"""
LOOK = "query ($id: ID!) { datasetVersion(id: $id) { status fingerprint reportUrl } }"
PATIENCE_MS = 180_000
MARKUP = "no</script><script>document.title = 'broken'</script>"


def rows(count: int, label: str = MARKUP) -> list[dict[str, Any]]:
    draw = random.Random(3)
    return [
        {
            "prompt": f"{draw.choice(['She', 'He'])} met {number} idiots. " + "word " * draw.randrange(40),
            "completion": draw.choice(["yes", label]),
            "group": draw.choice("abc"),
        }
        for number in range(count)
    ]


def test_the_page_stands_alone_and_shows_the_numbers_in_a_browser(tmp_path: Path) -> None:
    """In a sandbox, as it is served: scripts run, and nothing is asked of anybody, not even by the user's own words."""
    version = process(tmp_path / "made", lines(*rows(700)), near_dedup=None)
    order_report(tmp_path / "attempt", version, f"Snippets {MARKUP}, version 1")
    assert report_alone(tmp_path / "attempt") == {"status": "succeeded", "rows": 700}
    page_file = tmp_path / "attempt" / "report" / "report.html"
    blobs.put("t/x/report.html", page_file)
    with serving() as site, browsing(PATIENCE_MS) as page:  # four megabytes of script
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        url = f"{site}/files/{links.sign('t/x/report.html', 'report.html', 'text/html')}"
        page.goto(url)
        page.wait_for_selector(".js-plotly-plot")
        assert page.title() == f"Snippets {MARKUP}, version 1"
        assert page.evaluate("window.origin") == "null"
        text = page.inner_text("body")
    assert ([each for each in asked if not each.startswith(("data:", "blob:"))], wrong) == ([url], [])
    assert "Of 700 rows 700 were drawn at random for the charts" in text
    assert "700 rows (100.0%) hold an insult or profanity." in text
    assert "transgender and nonbinary people" in text and "words of the prompt" in text


def test_a_sample_is_small_seeded_and_has_held_out_rows(tmp_path: Path) -> None:
    empty = dict.fromkeys(ROWS.names)
    for split, count in (("train", 30_000), ("validation", 150), ("test", 0)):
        table = pa.Table.from_pylist([{**empty, "text": "x" * (n % 90), "line": n} for n in range(count)], schema=ROWS)
        pq.write_table(table, tmp_path / f"{split}-00000.parquet", row_group_size=1_000)
    first = sample(tmp_path, seed=1, most=2_000)
    assert first.total == 30_150
    assert (int(first.held_out.sum()), int((~first.held_out).sum())) == (100, first.num_rows - 100)
    assert 1_950 < first.num_rows <= 2_100
    again, other = sample(tmp_path, seed=1, most=2_000), sample(tmp_path, seed=2, most=2_000)
    assert again.numbers == first.numbers != other.numbers
    assert list(first.numbers) == ["characters of the text", "words of the text"]


def test_rows_that_were_added_to_others_are_drawn_like_them(tmp_path: Path) -> None:
    """A split has a file for each version that added to it."""
    empty = dict.fromkeys(ROWS.names)

    def write(name: str, lengths: range) -> None:
        table = pa.Table.from_pylist([{**empty, "text": "x" * n, "line": n} for n in lengths], schema=ROWS)
        pq.write_table(table, tmp_path / name, row_group_size=7)

    write("train-00000.parquet", range(20))
    write("train-00001.parquet", range(20, 30))
    for name in ("validation-00000", "validation-00001", "test-00000", "test-00001"):
        write(f"{name}.parquet", range(30, 31) if name == "validation-00001" else range(0))
    drawn = sample(tmp_path, seed=1)
    assert drawn.total == 31
    assert drawn.numbers["characters of the text"] == list(range(31))
    assert drawn.held_out.tolist() == [False] * 30 + [True]


@pytest.mark.parametrize("module", ["datasets.pipeline.__main__", "datasets.tasks"])
def test_neither_the_pipeline_nor_a_worker_imports_evidently(module: str) -> None:
    code = f"import os, sys, django; django.setup(); import {module}; print('evidently' in sys.modules, 'pandas' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=django_settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "platform_site.settings"},
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == ["False", "False"], run.stderr


# ---------------------------------------------------------------------------------------------- the job


@pytest.fixture
def made(bob: Person, settings: Any) -> dict[str, Any]:
    """A version, and its report, which a worker has made after it."""
    settings.REPORTS = True
    upload = make_upload(bob, lines(*rows(60, "no")).encode())
    made = bob.data(CREATE, input={"name": "Snippets", "uploadId": global_id(upload)})["createDataset"]
    work()
    return made


@pytest.mark.django_db(transaction=True)
def test_a_version_gets_a_report_that_its_members_have_a_link_to(bob: Person, made: dict[str, Any]) -> None:
    look = bob.data(LOOK, id=made["id"])["datasetVersion"]
    with operator():
        version, report = DatasetVersion.objects.get(), VersionReport.objects.get()
    assert (look["status"], report.status, report.attempt) == ("SUCCEEDED", "SUCCEEDED", 1)
    assert version.report_key == f"t/{bob.organization.pk}/reports/{report.pk}/0001/report.html"
    assert look["reportUrl"].startswith(f"{django_settings.PUBLIC_URL}/files/")
    assert not default_storage.exists(f"{version.storage_prefix}/report.html")
    with serving() as site:
        answer = httpx.get(look["reportUrl"].replace(django_settings.PUBLIC_URL, site), trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>Snippets, version 1</h1>" in answer.text


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_version_that_comes_while_a_report_is_made_comes_first(
    bob: Person, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one worker; the second version is asked for once the report's child is about to start."""
    settings.REPORTS = True
    prepare = reporting.prepare

    def create(number: int) -> None:
        upload = make_upload(bob, lines(*rows(60 + number, "no")).encode())
        bob.data(CREATE, input={"name": f"Snippets {number}", "uploadId": global_id(upload)})

    def prepare_and_create(report: VersionReport, lease: Lease, folder: Path) -> Any:
        work = prepare(report, lease, folder)
        if report.version.dataset.name == "Snippets 1" and lease.attempt == 1:
            create(2)
        return work

    monkeypatch.setattr(reporting, "prepare", prepare_and_create)
    create(1)
    work()
    with operator():
        reports = VersionReport.objects.select_related("version").order_by("created_at")
        first, second = list(reports)
    assert [(each.status, each.attempt, each.unproductive_attempts) for each in (first, second)] == [
        ("SUCCEEDED", 2, 1),  # giving way costs no attempt
        ("SUCCEEDED", 1, 1),
    ]
    assert second.version.finished_at < first.finished_at
    assert bool(first.version.report_key and second.version.report_key)


@pytest.mark.django_db(transaction=True)
def test_a_report_gives_way_to_what_has_come_since_it_began_alone(bob: Person, tmp_path: Path) -> None:
    made, waits = stored_version(bob), make_version(bob, make_dataset(bob, "Waits"), status="QUEUED")
    for split in reporting.SPLITS:
        default_storage.save(f"{made.storage_prefix}/{split}-00000.parquet", ContentFile(b""))
    report = VersionReport(organization_id=made.organization_id, version=made)
    work = reporting.prepare(report, Lease(VersionReport, report.pk, report.organization_id, 1, 1), tmp_path)
    with operator():
        assert list(DatasetVersion.objects.due()) == [waits]
    assert work.gives_way() is False
    make_version(bob, make_dataset(bob, "Comes"), status="QUEUED")
    assert work.gives_way() is True


@pytest.mark.django_db(transaction=True)
def test_what_becomes_of_the_report_is_nothing_to_the_version(bob: Person, settings: Any, monkeypatch: Any) -> None:
    settings.REPORTS = True
    upload = make_upload(bob, lines(*rows(60, "no")).encode())
    made = bob.data(CREATE, input={"name": "Snippets", "uploadId": global_id(upload)})["createDataset"]
    monkeypatch.setattr(reporting, "prepare", _refusing)
    work()
    look = bob.data(LOOK, id=made["id"])["datasetVersion"]
    assert (look["status"], look["reportUrl"]) == ("SUCCEEDED", None)
    with operator():
        report = VersionReport.objects.get()
    assert (report.status, report.error_code) == ("FAILED", "NO_REPORT")


def _refusing(report: VersionReport, lease: Lease, folder: Path) -> Any:
    raise Refused("NO_REPORT", "Not today.")


@pytest.mark.django_db(transaction=True)
def test_a_report_goes_with_its_dataset(bob: Person, made: dict[str, Any]) -> None:
    with operator():
        version, report = DatasetVersion.objects.select_related("dataset").get(), VersionReport.objects.get()
        version.dataset.__class__.objects.update(deleted_at=version.created_at)
        VersionReport.objects.update(status=JobStatus.RUNNING)
    remove_bytes_of_deleted_datasets()
    assert default_storage.exists(version.report_key)  # one that runs is stopped first
    with operator():
        assert VersionReport.objects.get().cancel_requested_at is not None
        VersionReport.objects.update(status=JobStatus.CANCELLED)
    remove_bytes_of_deleted_datasets()
    assert not default_storage.exists(version.report_key)
    assert not default_storage.exists(f"{version.storage_prefix}/manifest.json")
    with operator():
        DatasetVersion.objects.update(storage_prefix="")
        fresh = VersionReport.objects.select_related("version").get()
    with pytest.raises(Refused, match="deleted"):
        reporting.prepare(fresh, Lease(VersionReport, report.pk, report.organization_id, 2, 2), Path("/nowhere"))
