"""Fill-in-the-middle: which texts, in which order, with which tokens, and always the same ones."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from training.trainer.encoding import IGNORED, Example, Examples
from training.trainer.fim import SENTINELS, FillInTheMiddle, FimError

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]

PSM = re.compile(r"<fim_prefix>(?P<prefix>.*)<fim_suffix>(?P<suffix>.*)<fim_middle>(?P<middle>.*)<end>", re.DOTALL)
SPM = re.compile(r"<fim_prefix><fim_suffix>(?P<suffix>.*)<fim_middle>(?P<rest>.*)<end>", re.DOTALL)
TEXTS = [f"def f{i}(x):\n    return x + {i} * 'ä€😀' + name\n" for i in range(400)]


@pytest.fixture(scope="module")
def fim_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small base model with starcoder2's three tokens in its vocabulary, at the places of three others."""
    import json

    folder = tmp_path_factory.mktemp("bases") / "fim"
    shutil.copytree(tiny_base, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary: dict[str, int] = content["model"]["vocab"]
    size, merges = len(vocabulary), content["model"]["merges"]
    merged = sorted(vocabulary, key=vocabulary.__getitem__)[size - len(SENTINELS) :]
    content["model"]["merges"] = merges[: len(merges) - len(SENTINELS)]
    for old, new in zip(merged, SENTINELS, strict=True):
        index = vocabulary.pop(old)
        vocabulary[new] = index
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        content["added_tokens"].append({"id": index, "content": new, "special": True, **flags})
    file.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def tokenizer(fim_base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(fim_base)


def rearranged(tokenizer: Any, rate: float, seed: int = 3, max_tokens: int = 128) -> list[Example | None]:
    fim = FillInTheMiddle(tokenizer, rate, seed)
    return [fim.rearranged({"text": text}, number, max_tokens) for number, text in enumerate(TEXTS)]


def test_a_text_has_its_middle_at_its_end_in_one_of_two_orders(tokenizer: Any) -> None:
    orders, lengths = [], set()
    for text, example in zip(TEXTS, rearranged(tokenizer, 1.0), strict=True):
        assert example is not None and not example.truncated
        assert example.labels == [IGNORED, *example.ids[1:]]
        shown = tokenizer.decode(example.ids)
        if spm := SPM.fullmatch(shown):
            assert spm["rest"] + spm["suffix"] == text
        else:
            psm = PSM.fullmatch(shown)
            assert psm is not None, shown
            assert psm["prefix"] + psm["middle"] + psm["suffix"] == text
            lengths.add(len(psm["middle"]))
        orders.append("SPM" if spm else "PSM")
    assert 160 < orders.count("SPM") < 240
    assert min(lengths) <= 1 and max(lengths) > 30  # of 42 characters


def test_the_pieces_are_tokenized_apart(tokenizer: Any) -> None:
    shown = {tokenizer.decode(one.ids): one for one in rearranged(tokenizer, 1.0) if one}
    example = next(one for text, one in shown.items() if not SPM.fullmatch(text))
    found = PSM.fullmatch(tokenizer.decode(example.ids))
    assert found is not None
    prefix, suffix, middle = (
        tokenizer(found[name], add_special_tokens=False)["input_ids"] for name in ("prefix", "suffix", "middle")
    )
    sentinels = tokenizer.convert_tokens_to_ids(list(SENTINELS))
    assert example.ids == [
        sentinels[0],
        *prefix,
        sentinels[1],
        *suffix,
        sentinels[2],
        *middle,
        tokenizer.eos_token_id,
    ]


def test_the_seed_and_the_rows_number_decide_and_nothing_else(tokenizer: Any) -> None:
    half = rearranged(tokenizer, 0.5)
    assert half == rearranged(tokenizer, 0.5)
    assert 160 < sum(one is not None for one in half) < 240
    whole = rearranged(tokenizer, 1.0)
    assert all(one == other for one, other in zip(half, whole, strict=True) if one is not None)
    fim = FillInTheMiddle(tokenizer, 1.0, 3)
    assert fim.rearranged({"text": TEXTS[399]}, 399, 128) == whole[399]  # without those before it
    assert rearranged(tokenizer, 1.0, seed=4) != whole


def test_of_a_long_text_the_beginning_is_rearranged_and_fits(tokenizer: Any) -> None:
    long = "".join(TEXTS[:40])
    fim = FillInTheMiddle(tokenizer, 1.0, 3)
    for number in range(50):
        example = fim.rearranged({"text": long}, number, 64)
        assert example is not None and example.truncated
        assert 50 <= len(example.ids) <= 64
        assert example.ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    "row",
    [
        {"text": ""},
        {"text": "a <fim_middle> b"},
        {"prompt": "a", "completion": "b", "text": "c"},
        {"messages": [{"role": "user", "content": "a"}], "text": "c"},
        {},
    ],
)
def test_what_is_no_plain_text_stays_as_it_is(row: dict[str, Any], tokenizer: Any) -> None:
    fim = FillInTheMiddle(tokenizer, 1.0, 3)
    assert [fim.rearranged(row, number, 64) for number in range(20)] == [None] * 20
    assert fim.rearranged_rows == 0


def test_among_many_rows_each_keeps_its_place(tokenizer: Any) -> None:
    rows = [{"text": text} for text in TEXTS]
    plain = Examples.from_rows(rows, tokenizer, 128)
    mixed = Examples.from_rows(rows, tokenizer, 128, FillInTheMiddle(tokenizer, 0.5, 3))
    for index, example in enumerate(rearranged(tokenizer, 0.5)):
        ids, supervised = mixed.row(index)
        assert ids.tolist() == (example.ids if example else plain.row(index)[0].tolist())
        assert supervised.tolist() == [False] + [True] * (len(ids) - 1)


def test_a_tokenizer_without_the_tokens_is_refused(tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    with pytest.raises(FimError, match="no <fim_prefix>, <fim_suffix>, <fim_middle>"):
        FillInTheMiddle(AutoTokenizer.from_pretrained(tiny_base), 0.5, 3)


@pytest.fixture
def fim_orders(orders: dict[str, Any], fim_base: Path, tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "texts.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": text} for text in TEXTS[:40]]), path)
    return {
        **orders,
        "base_model": {**orders["base_model"], "path": str(fim_base)},
        "data": {name: [str(path)] for name in ("train", "validation", "test")},
        "config": orders["config"] | {"fim_rate": 0.5, "eval_every_steps": 6},
    }


def test_a_run_learns_some_of_its_texts_so_and_goes_on_to_the_same_adapter(
    fim_orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    straight = run_trainer(fim_orders, "straight")
    told = [event["text"] for event in events_of(straight, "LogLine") if event["text"].startswith(("train", "valid"))]
    assert told[0].endswith("; 22 with their middle at their end")
    assert "middle" not in told[1]
    saved = straight / "checkpoints/step-000003"
    resumed = run_trainer({**fim_orders, "resume_from": str(saved)}, "resumed")
    assert result_of(resumed)["adapter"] == result_of(straight)["adapter"]
    plain = run_trainer({**fim_orders, "config": fim_orders["config"] | {"fim_rate": 0.0}}, "plain")
    assert result_of(plain)["base_test_loss"] == result_of(straight)["base_test_loss"]  # the test split stays as it is
    assert result_of(plain)["adapter"] != result_of(straight)["adapter"]


def test_a_base_model_without_the_tokens_is_a_typed_failure(
    fim_orders: dict[str, Any], tiny_base: Path, run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    base = {**fim_orders["base_model"], "path": str(tiny_base)}
    result = result_of(run_trainer({**fim_orders, "base_model": base}))
    assert (result["status"], result["code"]) == ("failed", "FIM_UNSUPPORTED")
    assert "<fim_prefix>" in result["message"] and "fimRate" in result["message"]
