"""`manage.py process_dataset`, as an operator uses it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from accounts.models import AuditEntry, Quota
from common.jobs import JobStatus
from common.lookup import api_id
from common.tenancy import operator
from datasets import sending
from datasets.models import Dataset, DatasetVersion, Upload
from tests.cast import Person, make_person
from tests.commands import said_by
from tests.datasets.uploading import left_over, stored
from tests.processes import environment, start_python
from tests.rows import make_dataset

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet_queues")]

ROWS = [{"prompt": f"def f{number}(x):\n", "completion": f"    return x + {number}"} for number in range(40)]
LINES = [*map(json.dumps, ROWS), "{", json.dumps(ROWS[0]), json.dumps({"prompt": "grace@navy.mil", "completion": "c"})]


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(LINES))
    return path


def process(capfd: Any, *arguments: object) -> tuple[int, list[str], str]:
    """Exit status, lines of output, and errors."""
    return said_by(capfd, "process_dataset", *arguments)


def only_version() -> DatasetVersion:
    with operator():
        return DatasetVersion.objects.select_related("dataset", "upload").get()


WORKER = """
import time
from common.tenancy import operator
from datasets.models import DatasetVersion
from datasets.tasks import work
while True:
    with operator():
        if DatasetVersion.objects.filter(status="QUEUED").exists():
            break
    time.sleep(0.05)
work()
"""


@pytest.fixture
def worker() -> Iterator[None]:
    """Makes the first version that is queued."""
    process = start_python(WORKER)
    yield
    assert process.wait(240) == 0


def test_a_file_becomes_a_dataset_and_its_steps_and_rows_are_told(
    ada: Person, file: Path, worker: None, capfd: Any
) -> None:
    status, output, errors = process(capfd, file, "--organization", "ada-s", "--name", "Snippets", "--wait")
    version = only_version()
    assert (status, errors) == (0, "")
    assert output[0] == f"Queued as {version.pk.hex[:8]}: Snippets v1"
    assert sum("no worker" in line for line in output) <= 1
    for line in [
        "  parse: 43 in, 42 kept",
        "  dedup_exact: 42 in, 41 kept",
        "  store: 41 in, 41 kept",
        "43 rows in, 41 kept",
        f"  train       {version.splits[0]['rows']}",
        "  DUPLICATE  1  line 42: same as line 1: def f0(x):",
        "  NOT_JSON   1  line 41: {",
        "  EMAIL  1",
        f"In the API: {api_id(version)}",
        f"Its rows:  manage.py export_dataset {version.pk.hex[:8]}",
    ]:
        assert line in output, (line, output)
    assert (version.rows_kept, version.created_by, version.upload.file_name) == (41, None, "rows.jsonl")
    with operator():
        entry = AuditEntry.objects.get(action="version.create")
    assert (entry.actor, entry.target) == ("command", f"version:{version.pk}")
    assert file.exists() and left_over() == []


def test_without_waiting_it_says_how_to_look_and_to_cancel(ada: Person, file: Path, capfd: Any) -> None:
    status, output, _ = process(capfd, file, "--organization", ada.organization.pk, "--name", "Snippets")
    name = only_version().pk.hex[:8]
    assert status == 0
    assert output[0] == f"Queued as {name}: Snippets v1"
    assert output[-2:] == [f"To look:   manage.py jobs show {name}", f"To cancel: manage.py jobs cancel {name}"]


def test_a_further_version_takes_the_recipe_and_the_bytes_that_are_there(
    ada: Person, file: Path, tmp_path: Path, capfd: Any
) -> None:
    process(capfd, file, "--organization", "ada-s", "--name", "Snippets")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(
        '{"nearDedup": null, "min_characters": 3, "split": {"train": 1, "validation": 0, "test": 0},'
        ' "expectations": [{"column": "prompt", "check": "NOT_NULL", "onFailure": "FAIL"}]}'
    )
    dataset = only_version().dataset
    status, output, errors = process(capfd, file, "--dataset", dataset.pk.hex[:8], "--recipe", recipe)
    assert (status, errors) == (0, "") and "Snippets v2" in output[0]
    with operator():
        second = DatasetVersion.objects.get(number=2)
        assert Upload.objects.count() == 1
    assert (second.recipe["near_dedup"], second.recipe["min_characters"]) == (None, 3)
    assert [each["on_failure"] for each in second.recipe["expectations"]] == ["FAIL"]
    assert len(stored()) == 1


def test_the_same_again_is_the_version_that_there_is(ada: Person, file: Path, capfd: Any) -> None:
    process(capfd, file, "--organization", "ada-s", "--name", "Snippets")
    with operator():
        DatasetVersion.objects.update(status=JobStatus.SUCCEEDED)
    status, output, _ = process(capfd, file, "--organization", "ada-s", "--name", "Again", "--wait")
    assert status == 0
    assert output[0] == "There is a version of the same bytes and recipe: this is it."
    assert only_version().dataset.name == "Snippets"


def test_what_is_mistyped_is_said_with_what_may_be_meant(ada: Person, file: Path, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "recipe.json").write_text('{"minCharacters": -1}')
    (tmp_path / "unknown.json").write_text('{"nearDedup": {"treshold": 1}}')
    (tmp_path / "broken.json").write_text('{\n "split": }')
    (tmp_path / "list.json").write_text("[1]")
    dataset, charlies = make_dataset(ada), make_dataset(make_person("Charlie"))
    named = ("--name", "Snippets")
    for arguments, said in [
        ((tmp_path / "row.jsonl", *named), f"There is no file {tmp_path / 'row.jsonl'}; did you mean {file}?"),
        ((tmp_path, *named), f"{tmp_path} is not a file: zip a folder, and name the zip."),
        ((file, *named), "Say whose it will be: --organization, and its slug or id."),
        ((file, "--organization", "ada", *named), "No organization has the slug or the id 'ada'; there is ada-s."),
        ((file, "--organization", "zzz", *named), "No organization has the slug or the id 'zzz': the admin lists them."),
        ((file, "--organization", "ada-s"), "Say --name for a new dataset, or --dataset for a further version of one."),
        (
            (file, "--dataset", dataset.pk.hex, *named),
            "Say --name for a new dataset, or --dataset for a further version of one.",
        ),
        ((file, "--organization", "ada-s", "--dataset", charlies.pk), "Snippets belongs to charlie-s, not to ada-s."),
        ((file, "--dataset", "xyz"), "'xyz' is no id: one begins with hexadecimal digits, as 3f2a91c0 does."),
        ((file, "--organization", "ada-s", "--name", "\n"), "name should be 1 to 150 characters, none of them a control character."),
        *(
            ((file, "--organization", "ada-s", *named, "--recipe", tmp_path / name), f"{tmp_path / name}{rest}")
            for name, rest in {
                "recipe.json": ": min_characters: must be a whole number, 0 or more.",
                "unknown.json": ": near_dedup.treshold: unknown field; there are permutations, shingle_tokens, threshold.",
                "broken.json": " is no JSON: line 2, column 11: Expecting value.",
                "list.json": ": recipe: must be an object.",
            }.items()
        ),
    ]:  # fmt: skip
        status, output, errors = process(capfd, *arguments)
        assert (status, output, errors) == (1, [], said + "\n"), arguments
    with operator():
        assert not DatasetVersion.objects.exists()


def test_what_cannot_be_stored_leaves_nothing(
    ada: Person, file: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with operator():
        Quota.objects.create(organization=ada.organization, storage_bytes=10)
    status, _, errors = process(capfd, file, "--organization", "ada-s", "--name", "Snippets")
    assert status == 1 and errors.startswith("Your organization may store 10 bytes")
    with operator():
        Quota.objects.update(storage_bytes=2**40)
    digest = sending.sha256_of
    monkeypatch.setattr(
        "datasets.management.commands.process_dataset.sha256_of", lambda *_: digest(file, print)[:-1] + "0"
    )
    status, _, errors = process(capfd, file, "--organization", "ada-s", "--name", "Snippets")
    assert (status, errors) == (1, f"{file} changed while it was read: try again once nobody writes to it.\n")
    with operator():
        assert Upload.objects.get().was_given_up and not Dataset.objects.exists()
    assert left_over() == stored() == []


def test_a_version_that_fails_is_told_with_its_reason(ada: Person, tmp_path: Path, worker: None, capfd: Any) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    status, output, _ = process(capfd, tmp_path / "empty.jsonl", "--organization", "ada-s", "--name", "None", "--wait")
    assert status == 1
    assert any(line.startswith("FAILED: The file is empty. Upload ") for line in output), output
    assert not any("export_dataset" in line for line in output)


def test_ctrl_c_says_that_the_version_goes_on_and_how_to_cancel_it(ada: Person, file: Path) -> None:
    leader, follower = pty.openpty()
    arguments = [str(file), "--organization", "ada-s", "--name", "Snippets", "--wait"]
    process = subprocess.Popen(
        [sys.executable, "manage.py", "process_dataset", *arguments],
        cwd=settings.BASE_DIR,
        env={**environment(), "TERM": "xterm", "COLUMNS": "100"},
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    seen = read_until(leader, b"no worker of queue datasets is heard", b"")
    process.send_signal(signal.SIGINT)
    name = only_version().pk.hex[:8]
    seen = read_until(leader, f"To cancel: manage.py jobs cancel {name}".encode(), seen)
    assert b"The version goes on without you" in seen
    assert process.wait(240) == 130
    os.close(leader)
    assert only_version().status == JobStatus.QUEUED


def read_until(terminal: int, text: bytes, seen: bytes) -> bytes:
    while text not in seen:
        assert select.select([terminal], [], [], 240)[0], seen
        seen += os.read(terminal, 65536)
    return seen
