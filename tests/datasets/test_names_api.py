"""Names of people, asked for through the API and at the shell: by whom they are found, and what is said where nobody can."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command

from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion
from datasets.pipeline.names.model import installed
from datasets.tasks import work
from tests.cast import Person, make_person
from tests.datasets.name_models import stand_in, write_model
from tests.datasets.test_append_api import append, upload, versions
from tests.datasets.test_dataset_api import PROCESS, create
from tests.processes import environment
from tests.rows import global_id

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet_queues")]

LOOK = """query ($id: ID!) { datasetVersion(id: $id) { fingerprint errorCode errorMessage
  recipe { names namesModel { name version sha256 } } piiFindings { key count } preview { text } card } }"""
ROWS = [{"text": "by Ada Lovelace, for others"}, {"text": "by nobody, and unlike the one before"}]


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Path:
    """At work on this platform, as far as the package that stands in for spaCy can be."""
    stand_in(monkeypatch)
    write_model(tmp_path / "model")
    settings.PII_NAMES_MODEL = str(tmp_path / "model")
    return tmp_path / "model"


def looked_at(person: Person, made: dict[str, Any]) -> dict[str, Any]:
    return person.data(LOOK, id=made["id"])["datasetVersion"]


def refusal(made: dict[str, Any]) -> tuple[str, str, str]:
    (message,) = made["messages"]
    return message["code"], message["field"], message["message"]


def test_names_are_masked_where_there_is_a_model_unless_somebody_says_otherwise(ada: Person, model: Path) -> None:
    sent = upload(ada, ROWS)
    asked = create(ada, sent)
    off = create(ada, sent, recipe={"names": False})
    kept = create(ada, sent, recipe={"pii": "KEEP"})
    counted = create(ada, sent, recipe={"pii": "KEEP", "names": True})
    for _ in range(4):
        work()
    there = asdict(installed(str(model)))
    found = looked_at(ada, asked)
    assert found["recipe"] == {"names": True, "namesModel": there}
    assert found["piiFindings"] == [{"key": "PERSON_NAME", "count": 1}]
    texts = sorted(row["text"] for row in found["preview"])
    assert texts[0].startswith("by PERSON_NAME_") and texts[0].endswith(", for others")
    assert "en\\_people" in found["card"] and "Names of people are found by a model" in found["card"]
    for each in (off, kept):
        found = looked_at(ada, each)
        assert (found["recipe"], found["piiFindings"]) == ({"names": False, "namesModel": None}, [])
        assert "Names of people, postal addresses" in found["card"]
    found = looked_at(ada, counted)
    assert (found["recipe"]["names"], found["piiFindings"]) == (True, [{"key": "PERSON_NAME", "count": 1}])
    assert "by Ada Lovelace, for others" in [row["text"] for row in found["preview"]]
    assert create(ada, sent)["id"] == asked["id"]
    write_model(model, version="1.2.4")
    assert create(ada, sent)["id"] not in (asked["id"], off["id"])


def test_without_a_model_names_are_left_and_who_asks_for_them_is_refused(
    ada: Person, tmp_path: Path, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.PII_NAMES_MODEL = ""
    sent = upload(ada, ROWS)
    made = create(ada, sent)
    work()
    assert looked_at(ada, made)["recipe"] == {"names": False, "namesModel": None}
    code, field, message = refusal(create(ada, sent, recipe={"names": True}))
    assert (code, field) == ("NAMES_MODEL_MISSING", "recipe.names")
    assert message.endswith("or turn names off in the recipe.")
    settings.PII_NAMES_MODEL = str(tmp_path / "nowhere")
    code, field, message = refusal(create(ada, sent))  # nobody who has set one up wants names left in silence
    assert (code, field, str(tmp_path) in message) == ("NAMES_MODEL_MISSING", "recipe.names", False)
    assert "PII_NAMES_MODEL" in caplog.text
    assert create(ada, sent, recipe={"names": False})["id"] == made["id"]
    with operator():
        assert (Dataset.objects.count(), DatasetVersion.objects.count()) == (1, 1)


def test_rows_are_added_by_the_model_that_read_those_before(ada: Person, model: Path) -> None:
    create(ada, upload(ada, ROWS))
    work()
    with operator():
        dataset = Dataset.objects.get()
    append(ada, dataset, upload(ada, [{"text": "signed, Ada Lovelace, at sea"}]))
    work()
    two = versions(dataset)[-1]
    assert (two.status, two.recipe["names"]) == ("SUCCEEDED", asdict(installed(str(model))))
    assert two.pii_findings == [{"key": "PERSON_NAME", "count": 2}]
    write_model(model, version="2.0.0")
    refused = append(ada, dataset, upload(ada, [{"text": "more of Ada Lovelace"}]))
    code, field, message = refusal(refused)
    assert (code, field) == ("NAMES_MODEL_CHANGED", "recipe.names")
    assert "found by en_people 1.2.3" in message and "has en_people 2.0.0" in message
    assert len(versions(dataset)) == 2


def test_a_version_fails_where_its_model_is_gone_before_it_is_made(ada: Person, model: Path, settings: Any) -> None:
    made = create(ada, upload(ada, ROWS))
    settings.PII_NAMES_MODEL = ""  # as on another host
    work()
    found = looked_at(ada, made)
    assert found["errorCode"] == "NAMES_MODEL_MISSING" and "manage.py check" in found["errorMessage"]


def test_names_are_found_again_by_what_masks_them(ada: Person, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create(ada, upload(ada, ROWS))
    work()
    capsys.readouterr()
    call_command("find_rows", "ada lovelace", "--json")
    (report,) = json.loads(capsys.readouterr().out)["organizations"]
    assert [(row["line"], row["masked"]) for row in report["rows"]] == [(1, True)]


@pytest.mark.parametrize(
    ("chosen", "is_asked"), [({}, True), ({"names": False}, False), ({"names": None}, False), ({"names": True}, True)]
)
def test_a_file_at_the_shell_says_it_as_the_api_does_or_as_a_manifest(
    ada: Person, model: Path, tmp_path: Path, capfd: Any, chosen: dict[str, Any], is_asked: bool
) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "recipe.json").write_text(json.dumps(chosen))
    given = ("--organization", ada.organization.slug, "--name", "Rows", "--recipe", str(tmp_path / "recipe.json"))
    call_command("process_dataset", str(tmp_path / "rows.jsonl"), *given)
    with operator():
        recipe = DatasetVersion.objects.get().asked_recipe
    assert recipe["names"] == (asdict(installed(str(model))) if is_asked else None)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))  # as a manifest has it
    call_command("process_dataset", str(tmp_path / "rows.jsonl"), *given)
    assert "There is a version of the same bytes and recipe" in capfd.readouterr().out
    (tmp_path / "recipe.json").write_text('{"names": "yes"}')
    with pytest.raises(SystemExit):
        call_command("process_dataset", str(tmp_path / "rows.jsonl"), *given)
    assert "names: must be true or false, or a manifest's model or null" in capfd.readouterr().err


def check(tmp_path: Path, value: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "check"],
        env={**environment(), "PLATFORM_HOME": str(tmp_path / "home"), "PII_NAMES_MODEL": value},
        cwd=django_settings.BASE_DIR,
        capture_output=True,
        text=True,
    )


def test_the_check_says_what_to_do_about_a_model_that_is_missing(tmp_path: Path, model: Path) -> None:
    fine = check(tmp_path, str(model))
    assert (fine.returncode, fine.stdout) == (0, "System check identified no issues (0 silenced).\n"), fine.stderr
    missing = check(tmp_path, "en_no_such_model")
    assert missing.returncode == 1
    assert (
        "(datasets.E001) PII_NAMES_MODEL names the package en_no_such_model, which is not installed." in missing.stderr
    )
    assert "HINT: Install it into the platform's environment, on each host" in missing.stderr


def test_further_versions_have_the_same_default(ada: Person, model: Path) -> None:
    create(ada, upload(ada, ROWS), recipe={"names": False})
    with operator():
        dataset = Dataset.objects.get()
    ada.data(PROCESS, input={"datasetId": global_id(dataset)})
    assert [each.recipe["names"] is not None for each in versions(dataset)] == [False, True]
