"""Of whom rows speak, in what words, and what they are labelled: exact counts, and sentences only where they are sure."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datasets.pipeline.bias import Bias
from datasets.pipeline.bias.lexicon import lexicon
from datasets.pipeline.bias.rates import RateRatio
from datasets.pipeline.rows import ROWS
from tests.datasets.pipelines import lines, process

PLAIN = ["The weather changes on Monday.", "Trains leave every hour.", "A loop adds the numbers.", "Bread needs salt."]


def table(rows: list[dict[str, Any]]) -> pa.Table:
    empty = dict.fromkeys(ROWS.names)
    return pa.Table.from_pylist([{**empty, "line": line, **row} for line, row in enumerate(rows, 1)], schema=ROWS)


def report_of(rows: list[dict[str, Any]], batch: int = 1_000) -> dict[str, Any]:
    bias = Bias()
    apply = bias.begin()
    for start in range(0, len(rows), batch):
        given = table(rows[start : start + batch])
        outcome = apply(given)
        assert (outcome.kept, outcome.rejections, outcome.changed) == (given, [], 0)
    report = bias.report()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    return report


def texts(*given: str) -> list[dict[str, Any]]:
    return [{"text": text} for text in given]


def rows_by_group(report: dict[str, Any]) -> dict[str, int]:
    return {group["group"]: group["rows"] for axis in report["coverage"] for group in axis["groups"] if group["rows"]}


def association(report: dict[str, Any], group: str) -> dict[str, Any]:
    return {each["group"]: each for each in report["associations"]}[group]


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("She met the MEN.", ["women", "men"]),
        ("shelter, theme, human, womanly, he_is, his1", []),
        ("see the man page(1); man pages help", []),
        ("the man paged them", ["men"]),
        ("African-American and african american authors", ["Black people"]),
        ("black = 0; white = 255; old = None; blind = True", []),
        ("an old woman", ["women", "older people"]),
        ("le caf\u00e9 des fran\u00e7ais, caf\u00e9 he", ["men"]),
        ("non-binary\tlatina", ["transgender and nonbinary people", "Hispanic people"]),
        ("a Chinese remainder theorem", []),
        ("", []),
    ],
)
def test_whom_a_text_mentions(text: str, groups: list[str]) -> None:
    assert sorted(rows_by_group(report_of(texts(text)))) == sorted(groups)


def test_rows_count_once_in_whatever_column_and_shape() -> None:
    rows = [
        {"prompt": "he and she", "completion": "he said. He is stupid, an idiot."},
        {
            "messages": json.dumps(
                [{"role": "user", "content": "Hi\nwomen"}, {"role": "assistant", "content": "lazy women"}]
            )
        },
        {"text": "He left.\nstupid"},
        {"text": "You idiot!"},
        {"text": "nothing"},
    ]
    expected = {"men": 2, "women": 2}
    report = report_of(rows)
    assert (report["rows"], report["rows_with_identity"], rows_by_group(report)) == (5, 3, expected)
    assert report["toxicity"] == {"rows": 2, "rate": 0.4}
    men, women = association(report, "men"), association(report, "women")
    assert [men[value]["rows"] for value in ("positive", "negative", "toxic")] == [0, 1, 1]
    assert [women[value]["rows"] for value in ("positive", "negative", "toxic")] == [0, 1, 0]
    assert men["negative"] == {"rows": 1, "rate": 0.5, "others_rate": 0.5, "ratio": None, "low": None, "high": None}


def test_the_same_rows_give_the_same_report_in_whatever_batches_and_order() -> None:
    draw = random.Random(5)
    words = ["she", "he", "muslims", "lazy", "honest", "idiot", "tree", ".", "\n", "code"]
    rows = [
        {
            "prompt": " ".join(draw.choices(words, k=12)),
            "completion": draw.choice(["yes", "no"]),
            "group": draw.choice("ab"),
        }
        for _ in range(300)
    ]
    whole = report_of(rows)
    assert whole["labels"] and whole["groups"]
    assert report_of(rows, batch=7) == whole
    draw.shuffle(rows)
    assert report_of(rows, batch=31) == whole


def test_the_interval_is_the_published_one() -> None:
    """Koopman's example: 36 of 40 and 16 of 80 differ by a factor of 2.94 to 7.15, at 95 %."""
    ratio = RateRatio(36, 40, 16, 80)
    assert [round(ratio._z2(bound), 1) for bound in (2.94, 7.15)] == [3.8, 3.8]
    assert ratio.interval[0] < 2.94 < 7.15 < (ratio.interval[1] or 0)
    assert ratio._z2(ratio.interval[0]) == pytest.approx(3.2905**2) == ratio._z2(ratio.interval[1] or 0)


def test_a_ratio_is_told_where_there_are_rows_enough_for_one() -> None:
    assert RateRatio(30, 100, 20, 200).ratio == pytest.approx((30.5 / 100.5) / (20.5 / 200.5))
    assert RateRatio(30, 100, 20, 200).to_json() == {
        "rows": 30,
        "rate": 0.3,
        "others_rate": 0.1,
        "ratio": 2.968,
        "low": 1.296,
        "high": 6.929,
    }
    assert RateRatio(9, 49, 9, 1000).to_json()["ratio"] is None
    assert RateRatio(5, 50, 4, 50).to_json()["ratio"] is None
    assert RateRatio(0, 50, 10, 50).to_json() | {"rate": 0, "others_rate": 0} == {
        "rows": 0,
        "rate": 0,
        "others_rate": 0,
        "ratio": 0.048,
        "low": 0.0,
        "high": 0.976,
    }
    assert RateRatio(10, 50, 0, 50).to_json()["high"] is None
    assert RateRatio(50, 50, 50, 50).interval[0] < 1 < (RateRatio(50, 50, 50, 50).interval[1] or 0)


def test_what_is_said_of_one_group_alone_is_pointed_out() -> None:
    rows = texts(*["The women were lazy."] * 40, *["The women sang."] * 60, *["The men sang."] * 95, *["Lazy men."] * 5)
    report = report_of(rows)
    assert association(report, "women")["negative"]["ratio"] == pytest.approx((40.5 / 100.5) / (5.5 / 100.5), abs=1e-3)
    (sentence,) = report["look_at"]
    assert sentence == (
        "Of 100 rows that mention women, 40.0% have an unfavourable word beside that: 7.4 times as often as for others by "
        "gender (99.9 % interval 2.13 to 32.37). Read some of them."
    )


def test_what_is_missing_of_one_group_and_what_is_vile_is_pointed_out() -> None:
    honest = [*["Honest men."] * 50, *["Some men."] * 50, *["Honest women."] * 5, *["Some women."] * 95]
    assert report_of(texts(*honest))["look_at"] == [
        "Of 100 rows that mention women, 5.0% have a favourable word beside that: only 0.11 times as often as for others "
        "by gender (99.9 % interval 0.03 to 0.37). Read some of them."
    ]
    toxic = report_of(texts(*["Muslims are vermin."] * 30, *["Muslims pray."] * 70, *["Jews pray."] * 100))
    assert [sentence.split(":")[0] for sentence in toxic["look_at"]] == [
        "30 rows (15.0%) hold an insult or profanity. Look whether a model should learn to write like that.",
        "Of 100 rows that mention Muslims, 30.0% have an insult or profanity beside that",
    ]


def test_one_group_alone_is_pointed_out_once_there_are_enough_rows() -> None:
    assert report_of(texts(*["men"] * 99))["look_at"] == []
    assert report_of(texts(*["men"] * 90, *["women"] * 10))["look_at"] == [
        "Of 100 mentions by gender, 90.0% are of men: a model learns little of the others. Look whether rows about them "
        "are missing."
    ]
    assert report_of(texts(*["men"] * 89, *["women"] * 11))["look_at"] == []


def test_labels_by_whom_rows_mention_and_by_group() -> None:
    rows = [
        *({"prompt": "gay people", "completion": "toxic", "group": "a"} for _ in range(60)),
        *({"prompt": "gay people", "completion": " fine ", "group": "a"} for _ in range(40)),
        *({"prompt": "trees", "completion": "toxic", "group": "b"} for _ in range(20)),
        *({"prompt": "trees", "completion": "fine", "group": "b"} for _ in range(180)),
    ]
    report = report_of(rows)
    assert report["labels"]["values"] == [
        {"label": "fine", "rows": 220, "share": 0.733333},
        {"label": "toxic", "rows": 80, "share": 0.266667},
    ]
    (gay,) = report["labels"]["by_identity"]
    assert (gay["group"], gay["rows"], [label["rows"] for label in gay["labels"]]) == (
        "gay, lesbian, and bisexual people",
        100,
        [40, 60],
    )
    assert gay["labels"][1] | {"low": 0, "high": 0} == {
        "label": "toxic",
        "rows": 60,
        "rate": 0.6,
        "others_rate": 0.1,
        "ratio": 5.888,
        "low": 0,
        "high": 0,
    }
    assert [(each["group"], each["rows"]) for each in report["labels"]["by_group"]] == [("b", 200), ("a", 100)]
    assert report["groups"] == {
        "rows": 300,
        "distinct": 2,
        "largest": [{"group": "b", "rows": 200, "share": 0.666667}, {"group": "a", "rows": 100, "share": 0.333333}],
    }
    assert [" ".join(sentence.split()[:8]) for sentence in report["look_at"]] == [
        "Rows that mention gay, lesbian, and bisexual people",
        "Rows of the group 'a' are labelled 'toxic'",
        "Rows of the group 'b' are labelled 'toxic'",
    ]
    assert report["look_at"][0] == (
        "Rows that mention gay, lesbian, and bisexual people are labelled 'toxic' 5.89 times as often as other rows "
        "(99.9 % interval 2.93 to 12.62). Look whether their contents are why."
    )


def test_completions_that_are_no_labels_are_none() -> None:
    code = [{"prompt": "p", "completion": f"return {number}"} for number in range(300)]
    assert report_of(code)["labels"] is None
    long = [{"prompt": "p", "completion": word} for word in ("yes", "no") for _ in range(50)]
    assert report_of(long)["labels"] is not None
    assert report_of([*long, {"prompt": "p", "completion": "x" * 41}])["labels"] is None
    assert report_of([*long, {"text": "p"}])["labels"] is None
    assert report_of([{"prompt": "p", "completion": "yes"}] * 50)["labels"] is None


def test_memory_is_bounded_however_many_groups_there_are() -> None:
    bias = Bias()
    apply = bias.begin()
    for start in range(0, 3_000, 500):
        apply(table([{"prompt": "p", "completion": "yes", "group": str(start + n)} for n in range(500)]))
    assert (len(bias._labels.groups), len(bias._labels.by_group), bias.report()["groups"]) == (0, 0, None)


@pytest.mark.parametrize("seed", range(10))
def test_healthy_rows_give_nothing_to_look_at(seed: int) -> None:
    """All groups alike, some of them rare, and each with as many words of each kind as any other."""
    draw = random.Random(seed)
    people = [
        "women",
        "men",
        "Muslims",
        "Christians",
        "Jews",
        "elderly",
        "teenagers",
        "immigrants",
        "Germans",
        "gay",
        "deaf people",
    ]
    said = ["honest", "lazy", "brilliant", "cruel", "tall", "here", "late", "busy", "singing"]
    rows = []
    for _ in range(3_000):
        who = f"The {draw.choice(people)} are {draw.choice(said)}."
        text = " ".join([draw.choice(PLAIN), who if draw.random() < 0.5 else "", draw.choice(PLAIN)])
        rows.append(
            {"prompt": text, "completion": draw.choice(["yes", "no", "perhaps"]), "group": draw.choice("abcde")}
        )
    report = report_of(rows)
    assert report["rows_with_identity"] > 1_300
    assert report["look_at"] == []


def test_code_gives_nothing_to_look_at() -> None:
    sources = sorted(Path(json.__file__).parent.parent.glob("*.py"))[:150]
    pieces = [piece for source in sources for piece in source.read_text(errors="ignore").split("\ndef ")]
    report = report_of(texts(*pieces))
    assert report["rows"] > 1_000
    assert report["look_at"] == []


def test_the_step_counts_what_is_stored_and_can_be_turned_off(tmp_path: Path) -> None:
    rows = [
        {"text": "She wrote.", "id": 1},
        {"text": "She wrote."},
        {"text": "He wrote to grace@navy.mil"},
        {"text": ""},
    ]
    version = process(tmp_path / "on", lines(*rows), "rows.jsonl", pii="DROP", near_dedup=None)
    step = {each["name"]: each for each in version.result["steps"]}["bias"]
    assert (step["status"], step["rows_in"], step["rows_kept"], step["rows_changed"]) == ("DONE", 1, 1, 0)
    assert rows_by_group(version.result["bias"]) == {"women": 1}
    assert version.manifest["bias"] == version.result["bias"]
    off = process(tmp_path / "off", lines(*rows), "rows.jsonl", bias=False, near_dedup=None, pii="DROP")
    assert off.result["bias"] is None and off.manifest["bias"] is None
    assert {each["name"]: each["status"] for each in off.result["steps"]}["bias"] == "SKIPPED"
    assert off.split("train") + off.split("test") == version.split("train") + version.split("test")


def test_each_term_of_the_lexicon_is_found_as_itself() -> None:
    known = lexicon()
    for term, code in known.codes.items():
        bias = Bias()
        bias.begin()(table(texts(f"({term.upper()})")))
        counts = bias._counts
        assert counts.mentions.tolist() == [int(number in code) for number in range(len(known.groups))], term
        assert counts.toxic == int(known.code_of("toxic") in code), term


def test_what_was_counted_can_be_gone_on_with() -> None:
    """As where rows are added to a version: labels, groups, and whom they speak of are those of all rows."""
    chance = random.Random(1)
    said = [*PLAIN, "She is a brilliant woman.", "The men are stupid.", "An old man met a Muslim."]
    rows = [
        {"prompt": chance.choice(said), "completion": chance.choice(["yes", "no"]), "group": chance.choice("abc")}
        for _ in range(400)
    ]
    first = Bias()
    first.begin()(table(rows[:150]))
    counted = json.loads(json.dumps(first.to_json(), allow_nan=False))
    second = Bias(counted)
    second.begin()(table(rows[150:]))
    assert second.report() == report_of(rows)
    assert second.report()["labels"] and second.report()["groups"] and second.report()["associations"]
    assert first.report() == report_of(rows[:150]), "and whoever goes on leaves it as it was"


def test_too_many_labels_or_groups_stay_too_many() -> None:
    first = Bias()
    first.begin()(table([{"prompt": "p", "completion": f"label {row}", "group": f"{row}"} for row in range(1_100)]))
    second = Bias(json.loads(json.dumps(first.to_json())))
    second.begin()(table([{"prompt": "p", "completion": "yes", "group": "a"}] * 100))
    assert (second.report()["labels"], second.report()["groups"]) == (None, None)
