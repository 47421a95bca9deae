"""What the pipeline leaves for a person to judge: clusters of near-duplicates, and masked places."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datasets.pipeline import samples
from datasets.pipeline.pii import KINDS, Kind
from datasets.pipeline.pii.hints import hint
from tests.datasets.pipelines import Version, append, lines, process
from tests.datasets.test_near_duplicates_step import text

MAIL = "grace.hopper@navy.mil"
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


def sampled(version: Version) -> dict[str, Any]:
    return json.loads((version.folder / "samples.json").read_text())


def test_a_cluster_shows_the_row_kept_beside_those_that_are_not(tmp_path: Path) -> None:
    rows = [text(), "unlike all others", text(30) + " and more", text(10)]
    version = process(tmp_path, lines(*({"text": row} for row in rows)), "rows.jsonl")
    (cluster,) = sampled(version)["duplicate_clusters"]
    assert (cluster["line"], cluster["size"], cluster["source"]) == (3, 3, None)
    assert cluster["excerpt"] == rows[2][:300]
    first, second = cluster["dropped"]
    # of 56 shingles and of 58, all but five, and the two more, are the same: 51 / (56 + 58 - 51)
    assert (first["line"], first["similarity"]) == (1, round(51 / 63, 4))
    # ten more are not: 46 / (56 + 58 - 46)
    assert (second["line"], second["similarity"]) == (4, round(46 / 68, 4))
    at = rows[0].index("word30")
    assert first["excerpt"] == rows[0][at - samples.BEFORE_DIFFERENCE :][:300]
    assert first["kept_excerpt"] == rows[2][at - samples.BEFORE_DIFFERENCE :][:300]
    assert first["kept_excerpt"].startswith("d22") or "other30" in first["kept_excerpt"]


def test_what_is_masked_in_the_version_is_masked_in_its_clusters(tmp_path: Path) -> None:
    rows = [{"text": f"{MAIL} {text()} {TOKEN}"}, {"text": f"{MAIL} {text(40)}"}]
    for action in ("MASK", "DROP"):
        content = (
            process(tmp_path / action, lines(*rows), pii=action, secrets="MASK").folder / "samples.json"
        ).read_text()
        assert len(json.loads(content)["duplicate_clusters"]) == 1
        assert MAIL not in content and TOKEN not in content and "EMAIL_" in content
    version = process(tmp_path / "kept", lines(*rows), pii="KEEP", secrets="KEEP")
    assert sampled(version)["duplicate_clusters"][0]["excerpt"].startswith(MAIL)
    assert sampled(version)["masked_places"] == []


def test_of_many_clusters_the_largest_are_shown_and_of_each_what_is_least_sure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "CLUSTERS", 2)
    monkeypatch.setattr(samples, "MEMBERS", 1)
    rows = [text().replace("word", f"{letter}-") + end for letter, size in (("a", 2), ("b", 4), ("c", 3)) for end in [""] + [f" {'x ' * n}" for n in range(1, size)]]  # fmt: skip
    version = process(tmp_path, lines(*({"text": row} for row in rows)), "rows.jsonl")
    clusters = sampled(version)["duplicate_clusters"]
    assert [
        (cluster["size"], cluster["line"], [one["line"] for one in cluster["dropped"]]) for cluster in clusters
    ] == [
        (4, 6, [5]),
        (3, 9, [7]),
    ]


def test_a_masked_place_shows_what_stood_there_as_a_hint(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Write to {MAIL}, or call +1 650-253-0000.", "completion": "Done."},
        {"prompt": "Log in.", "completion": f"TOKEN = '{TOKEN}'"},
    ]
    version = process(tmp_path, lines(*rows), "rows.jsonl")
    places = {place["kind"]: place for place in sampled(version)["masked_places"]}
    first, second = version.rows
    assert places.keys() == {"EMAIL", "PHONE", "GITHUB_TOKEN"}
    assert places["GITHUB_TOKEN"] == {
        "kind": "GITHUB_TOKEN",
        "line": 2,
        "source": None,
        "field": "completion",
        "before": "TOKEN = 'ghp_… (40 to 49 characters)'",
        "after": second["completion"],
    }
    mail, phone = places["EMAIL"], places["PHONE"]
    assert (mail["line"], mail["field"]) == (1, "prompt")
    assert mail["before"].startswith("Write to gr…@n….mil, or call +PHONE_")
    assert phone["before"].endswith("or call +0 000-000-0000.")
    assert mail["after"] in first["prompt"] and phone["after"] in first["prompt"]
    content = (version.folder / "samples.json").read_text()
    assert MAIL not in content and TOKEN not in content and "650" not in content


def test_places_are_shown_of_every_kind_and_no_more_than_enough(tmp_path: Path) -> None:
    rows = [{"text": f"{number}: user{number}@navy.mil and more"} for number in range(50)]
    rows += [{"text": f"TOKEN = '{TOKEN}'"}]
    version = process(tmp_path, lines(*rows), "rows.jsonl", near_dedup=None)
    places = sampled(version)["masked_places"]
    assert Counter(place["kind"] for place in places) == {"EMAIL": samples.PLACES, "GITHUB_TOKEN": 1}
    assert [place["line"] for place in places] == [*range(1, samples.PLACES + 1), 51]


def test_of_rows_that_are_left_out_and_of_what_is_kept_nothing_is_shown(tmp_path: Path) -> None:
    rows = [{"text": f"{MAIL} and {TOKEN}"}, {"text": f"only {MAIL}"}, {"text": "neither"}]
    version = process(tmp_path / "drop", lines(*rows), "rows.jsonl", secrets="DROP")
    assert [(place["line"], place["kind"]) for place in sampled(version)["masked_places"]] == [(2, "EMAIL")]
    version = process(tmp_path / "keep", lines(*rows), "rows.jsonl", pii="KEEP")
    assert [(place["line"], place["kind"]) for place in sampled(version)["masked_places"]] == [(1, "GITHUB_TOKEN")]
    assert MAIL not in json.dumps(sampled(version))


def test_a_value_that_stands_again_beside_its_place_is_not_shown(tmp_path: Path) -> None:
    rows = [{"text": "password = 'hunter2hunter9'  # hunter2hunter9"}, {"text": "password = 'hunter2hunter9'"}]
    version = process(tmp_path, lines(*rows), "rows.jsonl", near_dedup=None)
    content = (version.folder / "samples.json").read_text()
    assert "hunter2hunter9" not in content
    assert [place["line"] for place in sampled(version)["masked_places"]] == [2]


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (Kind.EMAIL, "alice@example.org", "al…@e….org"),
        (Kind.EMAIL, "al@ab.io", "…@….io"),
        (Kind.PHONE, "+44 (20) 7946-0958", "+00 (00) 0000-0000"),
        (Kind.IPV4, "93.184.216.34", "00.000.000.00"),
        (Kind.IBAN, "DE89 3704 0044", "AA00 0000 0000"),
        (Kind.PASSWORD, "hunter2", "… (under 10 characters)"),
        (Kind.AWS_ACCESS_KEY, "AKIAQWERTYUIOPASDFGH", "AKIA… (20 to 29 characters)"),
        (Kind.PRIVATE_KEY, "-----BEGIN RSA PRIVATE KEY-----" + "x" * 1000, "-----BEGIN… (100 or more characters)"),
    ],
)
def test_a_hint_tells_a_mistake_from_a_find_and_no_more(kind: Kind, value: str, shown: str) -> None:
    assert hint(kind, value) == shown


def test_no_hint_of_a_secret_has_more_of_it_than_all_have() -> None:
    for kind in KINDS:
        assert "s3cr3t" not in hint(kind, "s3cr3t-s3cr3t@s3cr3t.s3cr3t")[:40] or kind is Kind.EMAIL


def test_the_same_rows_give_the_same_samples(tmp_path: Path) -> None:
    data = lines(*({"text": f"{text(number % 7)} user{number}@navy.mil"} for number in range(3_000)))
    first, second = (process(tmp_path / name, data).folder / "samples.json" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) < 1_000_000


@pytest.mark.parametrize("at_once", [1, 3_000])
def test_clusters_that_are_masked_together_show_what_each_would_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    mails = [f"user{number}@navy.mil" for number in range(9)]
    rows = [
        {"text": f"{text().replace('word', f'{place}-')} {mail} end{copy}"}
        for place, mail in enumerate(mails)
        for copy in range(2 + place % 3)
    ]
    together = sampled(process(tmp_path / "together", lines(*rows)))
    monkeypatch.setattr(samples, "MASKED_AT_ONCE", at_once)
    assert sampled(process(tmp_path / "in parts", lines(*rows))) == together
    masks = []
    for cluster in together["duplicate_clusters"]:
        (mask,) = {re.findall("EMAIL_[a-p]{12}", one[name])[0] for one in cluster["dropped"] for name in ("excerpt", "kept_excerpt")}  # fmt: skip
        masks.append(mask)
    assert len(set(masks)) == len(mails)


def test_of_rows_that_are_like_a_stored_one_none_is_shown_as_kept(tmp_path: Path) -> None:
    said = [" ".join(f"word{number}x{place}" for place in range(80)) for number in range(2)]
    first = process(tmp_path / "1", lines({"text": said[0]}))
    again = [{"text": f"{text} end{number}"} for text in said for number in range(3)]
    added = append(tmp_path / "2", [first], lines(*again))
    assert [row["text"] for row in added.rows if "end" in row["text"]] == [again[3]["text"]], (
        "the others are like a stored one"
    )
    (cluster,) = sampled(added)["duplicate_clusters"]
    assert (cluster["line"], cluster["size"]) == (4, 3)
