"""`manage.py export_dataset`, as an operator uses it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from accounts.models import AuditEntry
from common import blobs
from common.tenancy import operator
from datasets.management.commands import export_dataset
from datasets.models import Dataset, DatasetVersion
from tests.cast import Person, make_person
from tests.datasets.test_export import write
from tests.processes import environment
from tests.rows import global_id, make_dataset, make_version

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = [{"prompt": f"=f{number}", "completion": "c"} for number in range(30)]


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def version(ada: Person, tmp_path: Path) -> DatasetVersion:
    return finished(ada, make_dataset(ada, "Ada's snippets"), tmp_path)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def finished(person: Person, dataset: Dataset, folder: Path, **fields: Any) -> DatasetVersion:
    version = make_version(person, dataset, **fields)
    for path in write(folder / "shards", train=ROWS[:20], test=ROWS[20:]).iterdir():
        blobs.put(f"{version.artefacts}/0001/{path.name}", path)
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(storage_prefix=f"{version.artefacts}/0001")
    return version


def export(capfdbinary: Any, *arguments: str) -> tuple[int, bytes, str]:
    status = 0
    try:
        call_command("export_dataset", *arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    said = capfdbinary.readouterr()
    return status, said.out, said.err.decode()


def test_a_version_goes_to_standard_output(version: DatasetVersion, capfdbinary: Any) -> None:
    status, output, errors = export(capfdbinary, version.pk.hex[:8], "--split", "test", "--output", "-")
    assert (status, errors) == (0, "")
    assert [json.loads(line) for line in output.splitlines()] == ROWS[20:]
    _, output, _ = export(capfdbinary, global_id(version), "--format", "CSV", "--output", "-")
    assert output.startswith(b'"split","prompt","completion"\r\n"TRAIN","\'=f0","c"\r\n')
    with operator():
        entries = AuditEntry.objects.filter(organization_id=version.organization_id, action="version.download")
        noted = list(entries.order_by("sequence").values_list("actor", "target", "details"))
    assert noted == [
        ("command", f"version:{version.pk}", {"format": "JSONL", "split": "TEST"}),
        ("command", f"version:{version.pk}", {"format": "CSV", "split": "ALL"}),
    ]


def test_a_dataset_is_its_newest_finished_version_and_names_the_file(
    ada: Person, version: DatasetVersion, tmp_path: Path, capfdbinary: Any
) -> None:
    finished(ada, version.dataset, tmp_path / "second")
    make_version(ada, version.dataset, status="RUNNING")
    status, output, errors = export(capfdbinary, str(version.dataset_id), "--format", "parquet")
    path = Path("Ada-s-snippets-v2.parquet")
    assert (status, output, errors) == (0, b"", f"30 rows, {path.stat().st_size:,} bytes: {path}\n")
    assert sorted(Path().iterdir()) == [path]


def test_no_file_is_overwritten_and_none_is_left_half(
    version: DatasetVersion, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine").write_text("mine")
    status, _, errors = export(capfdbinary, version.pk.hex, "--output", "mine")
    assert (status, errors) == (1, "mine exists, and is left as it is: name another file, or remove that one first.\n")
    assert Path("mine").read_text() == "mine"
    status, _, errors = export(capfdbinary, version.pk.hex, "--output", "nowhere/rows.jsonl")
    assert (status, errors) == (1, "There is no folder nowhere: make it, or name another one.\n")

    def broken(*_: Any) -> Any:
        yield b"half"
        assert [path.name.startswith(".rows.jsonl.") for path in Path().iterdir() if path.name != "mine"] == [True]
        raise KeyboardInterrupt

    monkeypatch.setattr(export_dataset, "export", broken)
    status, _, errors = export(capfdbinary, version.pk.hex, "--output", "rows.jsonl")
    assert (status, errors) == (130, "Interrupted; nothing is left of the file.\n")
    assert [path.name for path in Path().iterdir()] == ["mine"]


def test_a_name_that_is_taken_meanwhile_is_left_to_whoever_took_it(
    version: DatasetVersion, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(*_: Any) -> Any:
        yield b"ours"
        Path("rows.jsonl").write_text("theirs")

    monkeypatch.setattr(export_dataset, "export", overtaken)
    status, _, errors = export(capfdbinary, version.pk.hex, "--output", "rows.jsonl")
    assert status == 1 and errors.startswith("rows.jsonl exists, and is left as it is")
    assert [path.read_text() for path in Path().iterdir()] == ["theirs"]


def test_what_cannot_be_exported_says_why(ada: Person, version: DatasetVersion, capfdbinary: Any) -> None:
    running = make_version(ada, status="RUNNING")
    failed = make_version(ada, status="FAILED", error_message="The file has no rows.")
    deleted = make_version(ada, make_dataset(ada, "Gone"))
    with operator():
        Dataset.objects.filter(pk=deleted.dataset_id).update(deleted_at="2026-01-01T00:00:00Z")
    empty = make_dataset(ada, "Empty")
    for text, said in {
        "xyz": "'xyz' is no id: one begins with hexadecimal digits, as 3f2a91c0 does.",
        "0" * 32: f"No dataset's or version's id begins with {'0' * 32}: `manage.py jobs --all` lists them.",
        running.pk.hex: f"Snippets v1 is RUNNING: wait until it is made. `manage.py jobs show {running.pk.hex[:8]}` says how far it is.",
        failed.pk.hex: "Snippets v1 FAILED, and has no rows: The file has no rows.",
        deleted.pk.hex: "Gone v1 was deleted: its rows are gone.",
        str(deleted.dataset_id): "Gone was deleted: its rows are gone.",
        empty.pk.hex: "Empty has no version.",
    }.items():
        assert export(capfdbinary, text, "--output", "x") == (1, b"", said + "\n")
    blobs.delete_tree(version.artefacts)
    status, _, errors = export(capfdbinary, version.pk.hex)
    assert status == 1 and errors.startswith("A file of this version is not in storage any more: ")
    with pytest.raises(CommandError, match="invalid choice: 'xml'"):
        call_command("export_dataset", version.pk.hex, "--format", "xml")
    assert list(Path().iterdir()) == []


def test_a_terminal_sees_how_far_it_is_and_ctrl_c_leaves_nothing(version: DatasetVersion, tmp_path: Path) -> None:
    """In a process of its own; it is stopped at the first sign of life of its bar."""
    code = """
import time
from datasets.management.commands import export_dataset
def pieces(version, split, export_format, advance):
    while True:
        advance(1); yield b"x"; time.sleep(0.02)
export_dataset.export = pieces
from django.core.management import call_command
call_command("export_dataset", VERSION, "--output", OUTPUT)
"""
    code = code.replace("VERSION", repr(version.pk.hex)).replace("OUTPUT", repr(str(tmp_path / "here" / "rows.jsonl")))
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "import django; django.setup()\n" + code],
        cwd=settings.BASE_DIR,
        env={**environment(), "TERM": "xterm", "COLUMNS": "100"},
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    while b"/30" not in seen:
        assert select.select([leader], [], [], 60)[0], seen
        seen += os.read(leader, 65536)
    assert b"Ada's snippets v1" in seen
    process.send_signal(signal.SIGINT)
    while b"Interrupted" not in seen:
        assert select.select([leader], [], [], 60)[0], seen
        seen += os.read(leader, 65536)
    assert process.wait(60) == 130
    os.close(leader)
    assert list((tmp_path / "here").iterdir()) == []
