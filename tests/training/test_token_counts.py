"""Rows are counted as the trainer will encode them, whatever the longest sequence, without any of its libraries."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import settings

from tests.training.conftest import WORDS
from tests.training.test_chat_templates import TEMPLATE, said
from training.trainer.counting import lengths_of
from training.trainer.lengths import Lengths

MAX_TOKENS = [16, 17, 20, 31, 48, 64, 100, 128]


def some_rows(seed: int) -> list[dict[str, Any]]:
    """Of all three kinds, with empty parts, long prompts, roles of many words, and chats without an assistant."""
    drawn = random.Random(seed)

    def words(most: int) -> str:
        return " ".join(drawn.choices(WORDS, k=drawn.randint(0, most)))

    def chat() -> list[dict[str, str]]:
        roles = ["system", "user", "assistant", "assistant", "tool " + words(30)]
        return [{"role": drawn.choice(roles), "content": words(60)} for _ in range(drawn.randint(0, 5))]

    def row() -> dict[str, Any]:
        kind = drawn.choice(["pair", "chat", "text"])
        prompt = drawn.choice([None, words(150)])
        return {
            "pair": {"prompt": prompt, "completion": words(80), "messages": None, "text": None},
            "chat": {"prompt": None, "completion": None, "messages": chat(), "text": None},
            "text": {"prompt": None, "completion": None, "messages": None, "text": drawn.choice([None, words(200)])},
        }[kind]

    return [row() for _ in range(600)]


@pytest.fixture(scope="session")
def tokenizers(tiny_base: Path) -> tuple[Any, Any]:
    """The one that counts, and the trainer's."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    return Tokenizer.from_file(str(tiny_base / "tokenizer.json")), AutoTokenizer.from_pretrained(tiny_base)


@pytest.mark.parametrize("seed", range(5))
def test_each_row_is_as_long_as_the_trainer_makes_it(seed: int, tokenizers: tuple[Any, Any]) -> None:
    from training.trainer.encoding import Examples

    counting, training = tokenizers
    rows = some_rows(seed)
    found = lengths_of(rows, len(rows), counting)
    for max_tokens in MAX_TOKENS:
        examples = Examples.from_rows(rows, training, max_tokens)
        assert found.at(max_tokens).tolist() == examples.lengths.tolist(), max_tokens
    whole = Examples.from_rows(rows, training, 10_000)
    assert found.counted_share == pytest.approx(whole.supervised_tokens / len(whole.ids), abs=0.01)
    again = Lengths.from_json(found.to_json())
    assert again.totals.tolist() == found.totals.tolist() and again.needs.tolist() == found.needs.tolist()
    assert (again.rows, again.sampled, again.counted_share) == (600, 600, found.counted_share)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja"])
def test_chats_are_counted_as_the_base_models_template_has_them(
    name: str, tmp_path: Path, tiny_base: Path, tokenizers: tuple[Any, Any]
) -> None:
    from transformers import AutoTokenizer

    from training.trainer.counting import chats_of
    from training.trainer.encoding import Examples

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    if name.endswith(".json"):
        config = json.loads((base / name).read_text())
        (base / name).write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    else:
        (base / name).write_text(TEMPLATE)
    rows = [{"messages": said("Hi", " Yes ", "Why", "No")}, {"messages": said("nobody answers")}, {"text": "plain"}]
    found = lengths_of(rows, len(rows), tokenizers[0], chats_of(base))
    examples = Examples.from_rows(rows, AutoTokenizer.from_pretrained(base), 128)
    assert found.at(128).tolist() == examples.lengths.tolist()
    assert found.at(128).tolist() != lengths_of(rows, len(rows), tokenizers[0], chats_of(tiny_base)).at(128).tolist()


def test_the_shipped_tokenizer_counts_as_the_trainers_does() -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    from training.catalogue import SMALL
    from training.trainer.encoding import Examples

    source = Path(__file__).read_text()
    rows = [{"text": source[start : start + 700]} for start in range(0, len(source), 700)]
    found = lengths_of(rows, len(rows), Tokenizer.from_file(str(SMALL.folder / "tokenizer.json")))
    examples = Examples.from_rows(rows, AutoTokenizer.from_pretrained(SMALL.folder), 1024)
    assert found.at(1024).tolist() == examples.lengths.tolist()


def test_of_many_rows_each_that_is_counted_stands_for_several() -> None:
    found = Lengths(1000, 100, np.full(100, 7), np.full(100, 16), 1.0)
    assert (found.scale, Lengths(0, 0, np.zeros(0), np.zeros(0), 0.0).scale) == (10.0, 1.0)


def test_whoever_counts_imports_no_torch() -> None:
    code = "import sys, training.trainer.counting, training.trainer.sampler, tokenizers\nprint([m for m in ('torch', 'transformers') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=settings.BASE_DIR, capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")
