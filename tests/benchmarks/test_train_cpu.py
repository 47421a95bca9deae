"""What the benchmark of training gives its contenders, and what it concludes from their figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from benchmarks.harness import Report
from benchmarks.train_cpu import ENVIRONMENTS, OURS, PEERS, TARGETS, Contenders, Size, _check, _judge, corpus
from benchmarks.train_cpu import peers as scripts
from training.trainer.encoding import IGNORED, Examples
from training.trainer.run import read_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("corpus")
    corpus.write_rows(made)
    corpus.write_tokenizer(made / "model")
    return made


def test_a_peer_gets_the_tokens_and_the_labels_that_we_get(folder: Path) -> None:
    ours = Examples.from_rows(
        read_rows([folder / "held_out.parquet"]), AutoTokenizer.from_pretrained(folder / "model"), corpus.MAX_TOKENS
    )
    theirs = scripts.encoded(folder, "held_out", corpus.MAX_TOKENS)
    assert len(ours) == len(theirs) == corpus.ROWS["held_out"]
    for index, row in enumerate(theirs):
        ids, supervised = ours.row(index)
        assert ids.tolist() == row["input_ids"]
        assert supervised.tolist() == [label != IGNORED for label in row["labels"]]
        assert all(label in {IGNORED, token} for label, token in zip(row["labels"], row["input_ids"], strict=True))


def test_rows_are_short_and_long_and_half_of_their_tokens_are_asked(folder: Path) -> None:
    rows = scripts.encoded(folder, "train", corpus.MAX_TOKENS)
    lengths = sorted(len(row["input_ids"]) for row in rows)
    assert len(lengths) == corpus.ROWS["train"]
    assert lengths[len(lengths) // 2] == pytest.approx(corpus.MEDIAN_TOKENS, rel=0.1)
    assert (lengths[0], lengths[-1]) == (8, corpus.MAX_TOKENS)
    masked = sum(label == IGNORED for row in rows for label in row["labels"])
    assert masked / sum(lengths) == pytest.approx(0.5, abs=0.02)
    assert len({token for row in rows for token in row["input_ids"]}) > 5_000


def test_every_peer_has_a_way_to_train_and_an_environment() -> None:
    from benchmarks.peers import OF_BENCHMARKS, REQUIREMENTS

    assert PEERS.keys() == scripts.PEERS.keys() >= TARGETS.keys()
    environments = {ENVIRONMENTS.get(name, name) for name in PEERS}
    assert environments == set(OF_BENCHMARKS["train_cpu"]) <= REQUIREMENTS.keys()


def rounds(tokens: int, seconds: list[float], half: float = 1.0) -> list[dict[str, float]]:
    return [{"tokens": tokens, "seconds": each, "wall_s": each / 2, "half": half} for each in seconds]


def test_a_ratio_is_of_tokens_a_processor_second_in_the_same_round() -> None:
    report = Report("train_cpu", rounds=3)
    measured = {OURS: rounds(4_000, [10.0, 20.0, 10.0]), "trl": rounds(1_000, [10.0, 20.0, 5.0], half=2.0)}
    _judge(report, "29M", measured)
    ratio = report.ratios["trl 29M"]
    assert (ratio.median, ratio.low, ratio.high, ratio.target) == (4.0, 2.0, 4.0, 1.3)
    assert report.ratios["trl 29M by the clock"].target is None
    assert report.ours["29M platform tokens a processor second"] == 400
    assert report.ours["29M platform tokens a second"] == 800
    assert report.checks == {
        "29M: platform takes as long for a token of either half": True,
        "29M: trl takes as long for a token of either half": False,
    }


class Told:
    """Stands where an actor does, and has one held-out loss before it is trained and another after that."""

    def __init__(self, before: float, after: float, counted: int = 100) -> None:
        self.losses, self.counted = [before, after], counted

    def call(self, method: str, **_: Any) -> dict[str, float] | None:
        return {"loss": self.losses.pop(0), "tokens": 200, "counted": self.counted} if method == "held_out" else None


@pytest.mark.parametrize(
    ("ours", "theirs", "kept"),
    [
        (Told(10.0, 8.0), Told(10.0, 8.0), [True, True, True]),
        (Told(10.0, 8.03), Told(10.0, 8.0), [True, True, True]),
        (Told(10.0, 8.05), Told(10.0, 8.0), [True, False, True]),
        (Told(10.0, 8.0), Told(10.01, 8.0), [False, True, True]),
        (Told(10.0, 8.0), Told(10.0, 8.0, counted=99), [False, True, True]),
        (Told(10.0, 9.95), Told(10.0, 9.95), [True, True, False]),
    ],
)
def test_losses_must_begin_alike_and_fall_and_end_no_worse(ours: Told, theirs: Told, kept: list[bool]) -> None:
    report = Report("train_cpu")
    actors: Any = {OURS: ours, "trl": theirs}
    _check(Contenders(report, "29M", actors), Size(checked_tokens=1_000, round_s=1.0))
    assert list(report.checks.values()) == kept
