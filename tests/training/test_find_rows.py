"""Rows of a person are found by an address: masked or not, by whom they were sent, and what contains them."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command

from accounts.models import AuditEntry
from common.tenancy import operator
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.placeholders import Placeholders
from datasets.pipeline.stored.tracing import Trace, Wanted, traces, traces_in_examples
from tests.cast import make_person
from tests.datasets.test_append_api import append, made, upload, versions
from tests.datasets.test_dataset_api import PROCESS
from tests.rows import global_id, make_adapter, make_run

pytestmark = pytest.mark.django_db(transaction=True)

MAIL, PHONE = "grace.hopper@navy.mil", "+1 (212) 736-5000"
KEY = b"k" * 32


def parquet(**columns: list[Any]) -> BytesIO:
    file = BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=2)
    return BytesIO(file.getvalue())


@pytest.mark.parametrize(
    ("literal", "text", "is_found"),
    [
        (MAIL, f"of {MAIL.upper()}", True),
        (MAIL, "of grace-hopper@navy.mil", False),
        (PHONE, "call 212.736.5000", False),  # without its country it is another literal
        (PHONE, "call +1.212.736.5000 now", True),
        ("a+b (c)|d", "so A+B (C)|D it is", True),
        ("a+b (c)|d", "aab c", False),
        ("größe 5", "die GRÖSSE 5, die größe 5", True),
    ],
)
def test_a_literal_is_found_as_people_write_it(literal: str, text: str, is_found: bool) -> None:
    file = parquet(text=["no", "nor this", text], line=[1, 2, 3])
    found = [Trace(3, None, None, masked=False)] if is_found else []
    assert list(traces(file, Wanted.of(literal, KEY))) == found


def sent(*texts: str) -> list[Any]:
    return [{"text": f"{text} {'and words to tell it by ' * number}{number}"} for number, text in enumerate(texts)]


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    call_command("find_rows", *arguments, "--json")
    return json.loads(capsys.readouterr().out)["organizations"]


def test_what_contains_rows_of_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    ada, eve = make_person("Ada"), make_person("Eve")
    dataset, first = made(ada, sent(f"of {MAIL}", "of nobody", f"call {PHONE}"), recipe={"nearDedup": None})
    append(ada, dataset, upload(ada, sent("other", f"again of {MAIL.upper()}")))
    made(eve, sent("nothing"))
    from datasets.tasks import work  # the worker of the queue

    work()
    kept = ada.data(
        PROCESS, input={"datasetId": global_id(dataset), "uploadId": global_id(first.upload), "recipe": {"pii": "KEEP"}}
    )
    work()
    assert kept["processDataset"]["number"] == 3
    one, two, three = versions(dataset)
    run = make_run(ada, two, status="SUCCEEDED")
    adapter = make_adapter(ada, run)

    (report,) = found(capsys, MAIL)
    assert report["organization"] == {"id": str(ada.organization.pk), "name": ada.organization.name}
    assert [(row["version_id"], row["line"], row["masked"], row["upload"]) for row in report["rows"]] == [
        (str(one.pk), 1, True, f"{one.upload.pk} rows.jsonl"),
        (str(two.pk), 2, True, f"{two.upload.pk} rows.jsonl"),
        (str(three.pk), 1, False, f"{one.upload.pk} rows.jsonl"),
    ]
    assert [each["id"] for each in report["versions"]] == [str(each.pk) for each in (one, two, three)]
    assert [each["id"] for each in report["runs"]] == [str(run.pk)]
    assert [(each["id"], each["name"]) for each in report["adapters"]] == [(str(adapter.pk), "First:1")]
    (report,) = found(capsys, PHONE)
    assert [(row["line"], row["masked"]) for row in report["rows"]] == [(3, True), (3, False)]
    assert [each["name"] for each in report["versions"]] == ["Snippets v1", "Snippets v2", "Snippets v3"]
    with operator():
        found_before = AuditEntry.objects.filter(action="rows.find").order_by("sequence")
        entries = list(found_before.values_list("organization_id", "actor", "details"))
    assert entries == [
        (ada.organization.pk, "command", {"rows": 3, "versions": 3}),
        (ada.organization.pk, "command", {"rows": 2, "versions": 3}),
    ]

    call_command("find_rows", MAIL)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Ada's ({ada.organization.pk}): 3 rows"
    assert lines[1].split() == ["VERSION", "SPLIT", "LINE", "AS", "UPLOAD"]
    assert [line.split()[4] for line in lines[2:5]] == ["masked", "masked", "it"]
    assert lines[-1] == f"  in 1 adapters: First:1 ({adapter.pk})"

    for arguments, status in (
        (["nobody@nowhere.org"], 1),
        ([MAIL, "--organization", str(eve.organization.pk)], 1),
        (["abc"], 2),
    ):
        with pytest.raises(CommandError) as refused:
            call_command("find_rows", *arguments)
        assert refused.value.returncode == status
    with operator():
        assert AuditEntry.objects.filter(action="rows.find").count() == 3


def test_what_was_left_out_is_shown_and_is_in_no_version(capsys: pytest.CaptureFixture[str]) -> None:
    ada = make_person("Ada")
    made(ada, [f'{{"text": "of {MAIL}"', *sent("of nobody", "of others")], recipe={"nearDedup": None})
    (report,) = found(capsys, MAIL)
    assert [(row["split"], row["line"], row["masked"]) for row in report["rows"]] == [("rejections", 1, True)]
    assert (report["versions"], report["runs"], report["adapters"]) == ([], [], [])


def test_what_is_shown_beside_a_version_is_looked_into() -> None:
    mask = Placeholders(KEY).word(Kind.EMAIL, MAIL)
    samples = {
        "duplicate_clusters": [
            {
                "line": 3,
                "source": None,
                "excerpt": "nothing",
                "size": 3,
                "dropped": [
                    {
                        "line": 1,
                        "source": "a",
                        "similarity": 0.9,
                        "excerpt": f"by {MAIL}",
                        "kept_excerpt": f"by {mask}",
                    },
                    {"line": 1, "source": "b", "similarity": 0.9, "excerpt": "by others", "kept_excerpt": "by others"},
                ],
            }
        ],
        "masked_places": [
            {"kind": "EMAIL", "line": 7, "source": None, "field": "text", "before": "gr…@n….mil", "after": mask}
        ],
    }
    steps = [
        {"name": "clean", "examples": [{"line": 7, "source": None, "before": MAIL.upper(), "after": "x"}]},
        {"name": "parse"},
    ]
    found = traces_in_examples(samples, steps, Wanted.of(MAIL, KEY))
    assert found == [
        Trace(3, None, None, masked=True),
        Trace(1, "a", None, masked=False),
        Trace(7, None, None, masked=False),  # once, and as it is
    ]
    none: dict[str, Any] = {"duplicate_clusters": [], "masked_places": []}
    assert traces_in_examples(none, [], Wanted.of(MAIL, KEY)) == []
    added = {
        "name": "clean",
        "examples": [*steps[0]["examples"], {"line": 8, "source": None, "before": MAIL, "after": "x"}],
    }
    assert traces_in_examples(none, [added], Wanted.of(MAIL, KEY), before=steps) == [Trace(8, None, None, masked=False)]


def test_what_only_an_example_shows_is_found_there(capsys: pytest.CaptureFixture[str]) -> None:
    ada = make_person("Ada")
    words = " ".join(
        f"word{number}" for number in range(60)
    )  # its excerpt among those left out ends before the address
    rows = [{"text": f"{words} of {MAIL}"}, {"text": f"{words} of others, and of more than one of them"}]
    _, version = made(ada, rows)
    (report,) = found(capsys, MAIL)
    assert [(row["split"], row["line"], row["masked"], row["upload"]) for row in report["rows"]] == [
        ("examples", 1, True, f"{version.upload.pk} rows.jsonl")
    ]
    assert (report["versions"], report["runs"], report["adapters"]) == ([], [], [])
    call_command("find_rows", MAIL)
    assert capsys.readouterr().out.splitlines()[2].split()[2:5] == ["example", "1", "masked"]
