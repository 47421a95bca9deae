"""A version as a whole: every row accounted for, splits without leaks, the same bytes again, progress told."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.child import Attempt, ChildError, Interrupted
from datasets.pipeline.fingerprint import fingerprint
from datasets.pipeline.recipe import Recipe
from datasets.pipeline.run import Run
from datasets.pipeline.stored.store import read_rejections, read_rows
from tests.datasets.pipelines import lines, order, process, refused

SPLITS = ("train", "validation", "test")


def _split_of(version: Any, key: str = "text") -> dict[str, str]:
    return {row[key]: name for name in SPLITS for row in version.split(name)}


good = st.fixed_dictionaries({"prompt": st.text(max_size=20), "completion": st.text(max_size=20)}).map(json.dumps)
odd = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["prompt", "completion", "x"]), inner),
    max_leaves=5,
).map(json.dumps)
line = st.one_of(
    good.map(str.encode),
    odd.map(str.encode),
    st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
    st.sampled_from([b"", b" ", b"{", b"}", b'{"prompt":"p","completion":"c"}', b"\xff", b"\0", b'"\\ud800"']),
)


@given(body=st.lists(line, max_size=25))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_line_is_kept_or_rejected_once(tmp_path: Path, body: list[bytes]) -> None:
    first = b'{"prompt": "always", "completion": "there"}'
    folder = tmp_path / hashlib.sha256(b"\n".join(body)).hexdigest()
    version = process(folder, b"\n".join([first, *body]), "rows.jsonl", format="JSONL")
    places = [row["line"] for row in version.rows] + [rejection["line"] for rejection in version.rejections]
    filled = [number for number, one in enumerate([first, *body], 1) if one.strip(b" \t\n\r\x0b\x0c")]
    assert sorted(places) == filled
    for before, after in pairwise(version.result["steps"]):
        assert before["rows_in"] == before["rows_kept"] + before["rows_dropped"]
        assert sum(reason["count"] for reason in before["reasons"]) == before["rows_dropped"]
        assert before["rows_kept"] == after["rows_in"]
    assert version.result["rows_kept"] == sum(version.result["splits"].values())


@given(data=st.binary(max_size=200), name=st.sampled_from(["JSON", "CSV", "PYTHON", "JSONL", "AUTO"]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_crash_it(tmp_path: Path, data: bytes, name: str) -> None:
    folder = tmp_path / hashlib.sha256(data + name.encode()).hexdigest()
    order(folder, data, "x", {"format": name})
    with suppress(ChildError):  # and nothing else
        Run(Attempt(folder)).process()


def test_the_report_of_each_step(tmp_path: Path) -> None:
    rows = ["{", {"text": 1}, {"text": "a"}, {"text": "a"}, {"text": "b"}, {"text": ""}, {"text": 2}]
    version = process(tmp_path, lines(*rows), "rows.jsonl")
    seen = [
        (
            step["name"],
            step["status"],
            step["rows_in"],
            step["rows_kept"],
            [tuple(one.values()) for one in step["reasons"]],
        )
        for step in version.result["steps"]
    ]
    assert seen == [
        ("parse", "DONE", 7, 6, [("NOT_JSON", 1)]),
        ("clean", "DONE", 6, 6, []),
        ("validate", "DONE", 6, 3, [("WRONG_TYPE", 2), ("TOO_SHORT", 1)]),
        ("dedup_exact", "DONE", 3, 2, [("DUPLICATE", 1)]),
        ("dedup_near", "DONE", 2, 2, []),
        ("split", "DONE", 2, 2, []),
        ("pii", "DONE", 2, 2, []),
        ("bias", "DONE", 2, 2, []),
        ("store", "DONE", 2, 2, []),
    ]
    assert all(step["seconds"] >= 0 for step in version.result["steps"])
    assert [(one["line"], one["step"], one["reason"], one["field"], one["excerpt"]) for one in version.rejections] == [
        (1, "parse", "NOT_JSON", None, "{"),
        (2, "validate", "WRONG_TYPE", "text", '{"text": 1}'),
        (4, "dedup_exact", "DUPLICATE", None, "same as line 3: a"),
        (6, "validate", "TOO_SHORT", "text", '{"text": ""}'),
        (7, "validate", "WRONG_TYPE", "text", '{"text": 2}'),
    ]


def test_dedup_compares_content_alone_and_can_be_turned_off(tmp_path: Path) -> None:
    rows = [{"text": "a", "group": "x"}, {"text": "a", "group": "y"}, {"text": "a "}]
    assert process(tmp_path / "on", lines(*rows), near_dedup=None).why == [(2, "DUPLICATE")]
    off = process(tmp_path / "off", lines(*rows), exact_dedup=False, near_dedup=None)
    assert off.result["rows_kept"] == 3
    assert off.result["steps"][3]["status"] == "SKIPPED"


def test_fields_cannot_be_shifted_into_one_another(tmp_path: Path) -> None:
    rows = [{"prompt": "ab", "completion": "c"}, {"prompt": "a", "completion": "bc"}]
    assert process(tmp_path, lines(*rows)).result["rows_kept"] == 2


def test_shares_are_met_and_depend_on_the_seed(tmp_path: Path) -> None:
    data = lines(*({"text": f"row {number}"} for number in range(5_000)))
    version = process(tmp_path / "17", data)
    assert version.result["splits"] == {"TRAIN": 4014, "VALIDATION": 504, "TEST": 482}
    other = process(tmp_path / "18", data, split={"seed": 18})
    assert _split_of(version) != _split_of(other)
    two = process(tmp_path / "two", data, split={"train": 0.5, "validation": 0.5, "test": 0.0})
    assert two.result["splits"]["TEST"] == 0
    assert (
        process(tmp_path / "all", data, split={"train": 1, "validation": 0, "test": 0}).result["splits"]["TRAIN"]
        == 5_000
    )


def test_a_group_never_straddles_splits(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "group": f"g{number % 97}"} for number in range(2_000)]
    version = process(tmp_path, lines(*rows))
    groups = [{row["group"] for row in version.split(name)} for name in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 97
    assert all(groups)


def test_a_row_keeps_its_split_when_rows_are_added(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", **({"group": f"g{number % 9}"} if number % 2 else {})} for number in range(600)]
    few = _split_of(process(tmp_path / "few", lines(*rows[:300], *rows[100:120])))
    many = _split_of(process(tmp_path / "many", lines({"text": "new first"}, *reversed(rows))))
    assert len(few) == 300
    assert {text: many[text] for text in few} == few


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_train_is_never_empty_while_there_are_rows(tmp_path: Path, rows: int) -> None:
    for seed in range(12):
        data = lines(*({"text": f"{seed}-{number}"} for number in range(rows)))
        version = process(
            tmp_path / str(seed), data, split={"train": 0.1, "validation": 0.5, "test": 0.4, "seed": seed}
        )
        assert version.result["splits"]["TRAIN"] == len(version.split("train")) > 0
        assert sum(version.result["splits"].values()) == rows


def test_all_rows_equal_is_one_row(tmp_path: Path) -> None:
    version = process(tmp_path, lines(*[{"text": "same"}] * 50))
    assert version.result["splits"] == {"TRAIN": 1, "VALIDATION": 0, "TEST": 0}
    assert len(version.rejections) == 49


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_manifest_names_every_file_and_a_rerun_gives_the_same_bytes(tmp_path: Path) -> None:
    data = lines(*({"prompt": f"p{number % 900}", "completion": "c" * number} for number in range(1_000)), "{", "[]")
    version = process(tmp_path / "a", data, "rows.jsonl")
    digests = _digests(version.folder)
    assert sorted(digests) == [
        "index-bits.npy",
        "index-contents.npy",
        "index-keys.npy",
        "index-pages.npy",
        "index-places.npy",
        "index-sources.json",
        "manifest.json",
        "rejections-00000.parquet",
        "samples.json",
        "test-00000.parquet",
        "train-00000.parquet",
        "validation-00000.parquet",
    ]
    manifest = version.manifest
    assert {file["name"]: file["sha256"] for file in (*manifest["files"], *manifest["index"])} == {
        name: digest for name, digest in digests.items() if name != "manifest.json"
    }
    assert [(file["split"], file["rows"]) for file in manifest["files"]] == [
        *version.result["splits"].items(),
        ("rejections", 3),
    ]
    assert manifest["fingerprint"] == fingerprint(hashlib.sha256(data.encode()).hexdigest(), Recipe())
    assert (manifest["recipe"]["format"], manifest["recipe"]["columns"]) == (
        "JSONL",
        {"prompt": "prompt", "completion": "completion"},
    )
    (tmp_path / "b" / "version").mkdir(parents=True)
    (tmp_path / "b" / "version" / ".train.draft").write_bytes(b"of an attempt that was killed")
    assert _digests(process(tmp_path / "b", data, "rows.jsonl").folder) == digests


def test_progress_is_told_in_order_and_ends_at_one(tmp_path: Path) -> None:
    data = lines(*({"text": f"row {number}"} for number in range(400_000)))
    version = process(tmp_path, data)
    told = [event for event in version.events if event["kind"] == "StepProgressed"]
    for name in ("parse", "clean", "validate", "dedup_exact", "dedup_near", "split", "pii", "bias", "store"):
        of_step = [event for event in told if event["name"] == name]
        shares = [event["progress"] for event in of_step]
        assert shares == sorted(shares)
        assert (shares[0], shares[-1]) == (0.0, 1.0)
        assert [event["status"] for event in of_step][-1] == "DONE"
        assert of_step[-1]["rows_kept"] == 400_000
    assert any(0 < event["progress"] < 1 and event["rows_in"] > 0 for event in told)
    between = [event for event in told if event["status"] == "RUNNING" and event["progress"] > 0]
    times = [datetime.fromisoformat(event["at"]).timestamp() for event in between]
    assert all(later - earlier >= 0.19 for earlier, later in pairwise(times))


def test_a_failure_ends_its_steps_as_failed(tmp_path: Path) -> None:
    refused(tmp_path, lines("{", "{"), "rows.jsonl")
    events = [json.loads(one) for one in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["status"] for event in events if event.get("name") == "parse"][-1] == "FAILED"


def test_it_stops_when_asked(tmp_path: Path) -> None:
    order(tmp_path, lines({"text": "a"}).encode(), "x", {})
    attempt = Attempt(tmp_path)
    attempt._stop.set()
    with pytest.raises(Interrupted):
        Run(attempt).process()


def _child(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "datasets.pipeline", str(folder)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], env={**os.environ}, timeout=60)
    return json.loads((folder / "result.json").read_text())


def test_as_a_child_process_it_leaves_a_result(tmp_path: Path) -> None:
    order(tmp_path / "good", lines({"text": "a"}, {"text": "b"}).encode(), "../../x\0.jsonl", {})
    done = _child(tmp_path / "good")
    assert (done["status"], done["format"], done["rows_in"], done["rows_kept"], done["rejected"]) == (
        "succeeded",
        "JSONL",
        2,
        2,
        0,
    )
    assert done["size_bytes"] > 0
    order(tmp_path / "empty", b"", "x", {})
    assert _child(tmp_path / "empty")["code"] == "EMPTY_FILE"
    order(tmp_path / "recipe", b"{}", "x", {"split": {"train": 0.5}})
    failed = _child(tmp_path / "recipe")
    assert (failed["status"], failed["code"]) == ("failed", "RECIPE_INVALID")
    assert failed["message"] == "split: train, validation, and test must sum to 1; they sum to 0.7"


def test_rejections_are_read_page_by_page(tmp_path: Path) -> None:
    rows = [one for number in range(25_000) for one in ("{", {"text": number})]
    version = process(tmp_path, lines({"text": "a"}, *rows), "rows.jsonl")
    path = version.folder / "rejections-00000.parquet"
    assert [(one["position"], one["line"]) for one in read_rejections(path, 0, 2)] == [(1, 2), (2, 3)]
    wrong = read_rejections(path, 40_001, 3, "WRONG_TYPE")
    assert [(one["position"], one["line"], one["reason"]) for one in wrong] == [
        (40_002, 40_003, "WRONG_TYPE"),
        (40_004, 40_005, "WRONG_TYPE"),
        (40_006, 40_007, "WRONG_TYPE"),
    ]
    assert len(read_rejections(path, 49_990, 100)) == 10
    assert read_rejections(path, 50_000, 100) == []
    assert read_rejections(path, 0, 5, "NOPE") == []
    with path.open("rb") as file:
        assert read_rejections(file, 0, 1)[0]["excerpt"] == "{"


def test_a_preview_reads_the_first_rows(tmp_path: Path) -> None:
    version = process(tmp_path, lines(*({"text": f"row {number}"} for number in range(100))))
    train = version.folder / "train-00000.parquet"
    assert read_rows(train, 3) == version.split("train")[:3]
    assert read_rows(train, 0) == []
    only = process(tmp_path / "one", lines({"text": "a"}))
    assert read_rows(only.folder / "test-00000.parquet", 5) == []
