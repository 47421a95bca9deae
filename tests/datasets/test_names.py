"""Names of people are masked as an operator's model finds them, wherever a version shows what rows say.

The model is the one that stands in for spaCy's (stand_ins/spacy.py); all else is real.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from common.child import Attempt, ChildError
from datasets.pipeline.fingerprint import fingerprint
from datasets.pipeline.names.finder import SpacyNames, names
from datasets.pipeline.names.model import NamesModel, installed
from datasets.pipeline.pii import Action, Kind, Policy, find, scrub
from datasets.pipeline.recipe import Recipe
from datasets.pipeline.run import Run
from tests.datasets.name_models import CONFIG, PATTERNS, stand_in, write_model
from tests.datasets.pipelines import Version, lines, order

KEY = b"k" * 32
PLACEHOLDER = re.compile("PERSON_NAME_[a-p]{12}")


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def finder(model: Path) -> SpacyNames:
    return SpacyNames.of(str(model), installed(str(model)))


def ordered(folder: Path, data: str, model: Path, parents: Sequence[Version] = (), **recipe: Any) -> None:
    order(folder, data.encode(), "rows.jsonl", {"names": asdict(installed(str(model))), **recipe}, parents)
    orders = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**orders, "names_model": str(model)}))


def process(folder: Path, data: str, model: Path, parents: Sequence[Version] = (), **recipe: Any) -> Version:
    ordered(folder, data, model, parents, **recipe)
    result = Run(Attempt(folder)).process()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return Version(folder / "version", result, events, tuple(parents))


# ---------------------------------------------------------------------------------------------- what is found


@pytest.mark.parametrize(
    ("text", "span", "found"),
    [
        ("by Ada Lovelace.", (3, 16), ["Ada Lovelace"]),
        ("by Ada's", (3, 8), ["Ada"]),
        ("of J. O'Brien-Smith Jr.", (3, 23), ["J. O'Brien-Smith Jr"]),
        ('"Ada", "Bob"', (1, 11), ["Ada", "Bob"]),
        ("'Ada' 'Bob'", (1, 10), ["Ada", "Bob"]),
        ("Ada\n# Bob", (0, 9), ["Ada", "Bob"]),
        ("Ada  Bob", (0, 8), ["Ada", "Bob"]),
        ("ada_lovelace", (0, 3), []),
        ("x1Ada", (2, 5), []),
        ("\\nAda", (1, 5), []),
        ("J.", (0, 2), []),
        ("Zoë Ångström (王小明)", (0, 17), ["Zoë Ångström", "王小明"]),
        ("Zoe\u0308 und", (0, 4), ["Zoe\u0308"]),
        ("Ada\u2028Bob", (0, 7), ["Ada", "Bob"]),
    ],
)
def test_of_what_a_model_marks_names_alone_are_replaced(text: str, span: tuple[int, int], found: list[str]) -> None:
    assert [text[start:end] for start, end in names(text, *span)] == found


def test_people_are_found_in_characters_and_others_are_not(finder: SpacyNames) -> None:
    texts = [
        "Ada Lovelace met Zoë Ångström, née O'Brien, of the Navy.",
        "",
        "# 王小明 wrote\nx = 1\ny = 2\n",
        "Ada = 1",
    ]
    found = finder(texts)
    assert [[text[start:end] for start, end in spans] for text, spans in zip(texts, found, strict=True)] == [
        ["Ada Lovelace", "Zoë Ångström", "O'Brien"],
        [],
        ["王小明"],
        [],
    ]
    assert [(each.row, each.start, each.end, each.kind) for each in find(pa.array(texts), names=finder)][1:] == [
        (0, 17, 29, "PERSON_NAME"),
        (0, 35, 42, "PERSON_NAME"),
        (2, 2, 5, "PERSON_NAME"),
    ]


def test_long_texts_keep_their_places(finder: SpacyNames) -> None:
    text = "".join(f"Line {number} is by Ada Lovelace, é.\n" for number in range(40_000))
    assert len(text) > 1_000_000  # a model refuses to read more at once
    (spans,) = finder([text])
    assert [text[start:end] for start, end in spans] == ["Ada Lovelace"] * 40_000
    found = find(pa.array(["é", text]), frozenset({Kind.PERSON_NAME}), names=finder)
    assert list(zip(found.start.tolist(), found.end.tolist(), strict=True)) == spans and set(found.row.tolist()) == {1}


def test_only_what_finds_entities_is_loaded(model: Path) -> None:
    assert SpacyNames.of(str(model), installed(str(model)))._nlp.pipe_names == ["entity_ruler"]


LISTENING = """
[components.ner]
factory = "ner"

[components.ner.model]
@architectures = "spacy.TransitionBasedParser.v2"

[components.ner.model.tok2vec]
@architectures = "spacy.{}"

[components.tok2vec]
factory = "tok2vec"

[components.parser]
factory = "parser"
"""


@pytest.mark.parametrize(
    ("architecture", "left_out"),
    [("Tok2VecListener.v1", ["parser", "tagger"]), ("HashEmbedCNN.v2", ["parser", "tagger", "tok2vec"])],
)
def test_what_a_finder_of_entities_listens_to_is_loaded_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, left_out: list[str]
) -> None:
    import spacy

    write_model(tmp_path / "model", config=CONFIG + LISTENING.format(architecture))
    asked: list[list[str]] = []
    load = spacy.load
    monkeypatch.setattr(spacy, "load", lambda name, exclude: asked.append(exclude) or load(name, exclude=exclude))
    SpacyNames.of(str(tmp_path / "model"), installed(str(tmp_path / "model")))
    assert asked == [left_out]


def test_a_text_is_read_once_and_whoever_waits_is_asked_in_between(model: Path) -> None:
    groups: list[int] = []
    finder = SpacyNames.of(str(model), installed(str(model)), between=lambda: groups.append(1))
    texts = [f"{number} is by Ada Lovelace. " * 1_000 for number in range(6)]
    first = finder([*texts, texts[0]])
    assert len(groups) == 3  # of 50,000 characters, in pieces of 10,000
    assert finder(texts[:2]) == first[:2] == [first[6], first[1]] and len(groups) == 3
    finder(["by others"])
    assert finder(texts[2:3]) == first[2:3] and len(groups) == 5  # nothing is kept for longer


def test_a_model_reads_once_where_some_kinds_are_kept(model: Path) -> None:
    """What is masked is then looked for once more, without what is kept and may overlap it."""
    groups: list[int] = []
    finder = SpacyNames.of(str(model), installed(str(model)), between=lambda: groups.append(1))
    columns = {name: pa.array([f"{name} by Ada Lovelace"]) for name in ("prompt", "completion")}
    masked = scrub(columns, Policy(secrets=Action.KEEP, names=finder), KEY)
    assert masked.counts == {Kind.PERSON_NAME: 2} and len(groups) == 1
    assert all(PLACEHOLDER.search(column.to_pylist()[0]) for column in masked.columns.values())


def test_a_stop_is_noticed_while_a_model_reads(model: Path) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        SpacyNames.of(str(model), installed(str(model)), between=stop)(["by Ada Lovelace"])


# ---------------------------------------------------------------------------------------------- what becomes of it

CHAT = [
    {"role": "user", "content": 'I am Ada Lovelace.\nWho is "Grace Hopper"?'},
    {"role": "assistant", "content": "Grace Hopper was in the Navy; ask ada@navy.mil."},
]
CODE = 'def found(x):\n    """Ada Lovelace\'s way."""\n    # Grace Hopper\n    Ada = "Ada Lovelace"\n    return Ada\n'


def test_names_are_masked_alike_and_what_could_be_parsed_still_can(tmp_path: Path, model: Path) -> None:
    rows = [{"messages": CHAT}, {"messages": [{"role": "assistant", "content": CODE}]}]
    version = process(tmp_path / "run", lines(*rows), model)
    first, second = (json.loads(row["messages"]) for row in version.rows)
    ada, grace = PLACEHOLDER.findall(first[0]["content"])
    assert first[0]["content"] == f'I am {ada}.\nWho is "{grace}"?'
    assert re.fullmatch(f"{grace} was in the Navy; ask EMAIL_[a-p]{{12}}.", first[1]["content"])
    code = second[0]["content"]
    assert code == CODE.replace("Ada Lovelace's", f"{ada}'s").replace("Grace Hopper", grace)
    ast.parse(code)
    assert version.result["pii_findings"] == [{"key": "PERSON_NAME", "count": 5}, {"key": "EMAIL", "count": 1}]
    assert [row["changed_by"] for row in version.rows] == ["pii", "pii"]


def test_a_name_has_one_placeholder_however_it_is_spelled(tmp_path: Path) -> None:
    write_model(
        tmp_path / "model", dict.fromkeys(("Ada Lovelace", "ADA LOVELACE", "Ada\u00a0Lovelace", "Ada"), "PERSON")
    )
    finder = SpacyNames.of(str(tmp_path / "model"), installed(str(tmp_path / "model")))
    texts = pa.array(["by Ada Lovelace", "BY ADA LOVELACE", "by Ada\u00a0Lovelace", "by Ada"])
    masked = scrub({"text": texts}, Policy(names=finder), KEY).columns["text"].to_pylist()
    first, second, third, other = (PLACEHOLDER.findall(text)[0] for text in masked)
    assert first == second == third != other
    again = scrub({"text": pa.array(masked)}, Policy(names=finder), KEY)
    assert again.columns["text"].to_pylist() == masked and not again.counts


def test_names_go_as_personal_data_goes(tmp_path: Path, model: Path) -> None:
    rows = [{"text": "by Ada Lovelace, for others"}, {"text": "by nobody at all, for others"}]
    dropped = process(tmp_path / "drop", lines(*rows), model, pii="DROP")
    assert [row["text"] for row in dropped.rows] == [rows[1]["text"]]
    assert [(row["line"], row["reason"], row["excerpt"]) for row in dropped.rejections] == [
        (1, "PERSONAL_DATA", "holds PERSON_NAME")
    ]
    kept = process(tmp_path / "keep", lines(*rows), model, pii="KEEP")
    assert [row["text"] for row in kept.rows] == [row["text"] for row in rows]
    assert kept.result["pii_findings"] == [{"key": "PERSON_NAME", "count": 1}]
    unasked = process(tmp_path / "unasked", lines(*rows), model, names=None)
    assert [row["text"] for row in unasked.rows] == [row["text"] for row in rows]
    assert unasked.result["pii_findings"] == []


def test_what_is_shown_beside_a_version_has_no_names_either(tmp_path: Path, model: Path) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    rows = [
        {"text": f"{words} by Ada Lovelace"},
        {"text": f"{words} by Ada Lovelace, too"},
        {"text": "signed, Grace Hopper"},
        {"text": "signed, Grace Hopper"},
        {"txt": "of Zoë Ångström"},
        '{"text": "by O\'Brien',
    ]
    version = process(tmp_path / "run", lines(*rows), model)
    assert sorted(version.why) == [(1, "NEAR_DUPLICATE"), (4, "DUPLICATE"), (5, "MISSING_FIELD"), (6, "NOT_JSON")]
    shown = [row["excerpt"] for row in version.rejections] + [(version.folder / "samples.json").read_text()]
    shown.append((version.folder / "manifest.json").read_text())
    for name in ("Lovelace", "Hopper", "Ångström", "Brien"):
        assert not any(name in text for text in shown), name
    (cluster,) = json.loads((version.folder / "samples.json").read_text())["duplicate_clusters"]
    assert cluster["excerpt"].startswith("word0 word1") and PLACEHOLDER.search(cluster["dropped"][0]["excerpt"])
    places = json.loads((version.folder / "samples.json").read_text())["masked_places"]
    assert [(place["kind"], place["before"][-19:]) for place in places] == [
        ("PERSON_NAME", "by Aaa Aaaaaaaa, too"[-19:]),
        ("PERSON_NAME", "igned, Aaaaa Aaaaaa"),
    ]


def test_rows_are_added_as_they_would_be_stored(tmp_path: Path, model: Path) -> None:
    """A near-duplicate of a stored row is one although what is stored has placeholders for half of its words."""
    said = " ".join(
        ["Ada Lovelace met Grace Hopper on day"] * 1 + [f"{number} with Ada Lovelace and" for number in range(30)]
    )
    first = process(tmp_path / "1", lines({"text": said}), model)
    added = process(tmp_path / "2", lines({"text": f"{said} so on"}, {"text": "unlike all others"}), model, [first])
    assert [(row["line"], row["reason"]) for row in added.rejections if row["line"] == 1] == [(1, "NEAR_DUPLICATE")]
    assert [row["text"] for row in added.rows if row["line"] == 2] == ["unlike all others"]


# ---------------------------------------------------------------------------------------------- which model it is


def test_the_same_model_gives_the_same_version_and_another_one_another(tmp_path: Path, model: Path) -> None:
    data = lines({"text": "by Ada Lovelace"})
    one, same = (process(tmp_path / name, data, model).manifest for name in "ab")
    assert one == same and one["recipe"]["names"] == asdict(installed(str(model)))
    none = process(tmp_path / "c", data, model, names=None).manifest
    write_model(model, PATTERNS | {"Bob": "PERSON"})
    another = process(tmp_path / "d", data, model).manifest
    assert len({one["fingerprint"], none["fingerprint"], another["fingerprint"]}) == 3
    recipe = Recipe(names=NamesModel(**one["recipe"]["names"]))
    assert one["fingerprint"] == fingerprint(one["source_sha256"], recipe)
    assert Recipe.from_json(recipe.to_json()) == recipe


def failure(folder: Path) -> ChildError:
    with pytest.raises(ChildError) as refused:
        Run(Attempt(folder)).process()
    assert not (folder / "version" / "manifest.json").exists()
    return refused.value


def test_no_version_is_made_by_another_model_than_was_asked_for(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ordered(tmp_path / "run", lines({"text": "by Ada Lovelace"}), model)
    before = installed(str(model))
    write_model(model, version="1.3.0")
    changed = failure(tmp_path / "run")
    assert changed.code == "NAMES_MODEL_CHANGED"
    assert changed.message == (
        f"Names of people were to be found by {before}, and this platform has {installed(str(model))} now. "
        "Make a new version of all rows, which the model that is there reads."
    )
    ordered(tmp_path / "run", lines({"text": "by Ada Lovelace"}), model)
    orders = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**orders, "names_model": ""}))
    missing = failure(tmp_path / "run")
    assert missing.code == "NAMES_MODEL_MISSING" and "Ask its operators" in missing.message
    write_model(model, spacy_version=">=2.0.0,<3.0.0")
    ordered(tmp_path / "run", lines({"text": "by Ada Lovelace"}), model)
    capfd.readouterr()
    unusable = failure(tmp_path / "run")
    assert unusable.code == "NAMES_MODEL_UNUSABLE" and "E000" not in unusable.message
    assert "[E000] The model is of another release." in capfd.readouterr().err


def test_the_pipelines_process_loads_the_model(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "run"
    ordered(folder, lines({"text": "by Ada Lovelace"}), model)
    ended = subprocess.run([sys.executable, "-m", "datasets.pipeline", str(folder)], capture_output=True, text=True)
    result = json.loads((folder / "result.json").read_text())
    assert (ended.returncode, result["status"]) == (0, "succeeded"), ended.stderr
    assert result["pii_findings"] == [{"key": "PERSON_NAME", "count": 1}]
    assert f"Names of people are found by {installed(str(model))}." in (folder / "events.jsonl").read_text()


def test_examples_of_cleaning_show_no_name(tmp_path: Path, model: Path) -> None:
    rows = [{"text": "by Ada Lovelace \nand others"}, {"text": "of nobody \nelse"}]
    version = process(tmp_path / "run", lines(*rows), model)
    steps = {step["name"]: step for step in version.manifest["steps"]}
    assert [example["line"] for example in steps["clean"]["examples"]] == [2]
    assert "Lovelace" not in json.dumps(version.manifest)
