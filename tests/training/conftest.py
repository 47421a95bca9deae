"""A base model of two layers with random weights, small data, and a way to run the trainer within the test process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from datasets.models import DatasetVersion
from tests.cast import Person
from tests.rows import stored_version

WORDS = ["def", "return", "self", "value", "name", "for", "in", "if", "not", "None", "items", "append", "len", "range"]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A starcoder2 of two layers, 64 wide, with grouped heads, and a byte-level BPE, as files."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Starcoder2Config, Starcoder2ForCausalLM

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [" ".join(WORDS)] * 10,
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False),
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>").save_pretrained(folder)
    torch.manual_seed(5)
    config = Starcoder2Config(
        vocab_size=len(tokenizer.get_vocab()),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        sliding_window=None,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        residual_dropout=0.0,
        embedding_dropout=0.0,
        attention_dropout=0.0,
        initializer_range=0.2,
    )
    Starcoder2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """40, 8, and 8 rows of prompts and completions of different lengths, as the pipeline leaves them."""
    folder = tmp_path_factory.mktemp("data")
    counts = {"train": 40, "validation": 8, "test": 8}
    made = {}
    for split, count in counts.items():
        rows = [
            {
                "prompt": f"def {split}_{i}(" + " ".join(WORDS[: i % 9]) + "):\n",
                "completion": "    return " + " ".join(WORDS[(i * 5) % 7 :][: 3 + i % 6]),
                "text": None,
                "messages": None,
                "line": i + 1,
            }
            for i in range(count)
        ]
        path = folder / f"{split}-00000.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="zstd")
        made[split] = [str(path)]
    return made


@pytest.fixture
def orders(tiny_base: Path, splits: dict[str, list[str]]) -> dict[str, Any]:
    return six_steps(tiny_base, splits)


def six_steps(base: Path, splits: dict[str, list[str]]) -> dict[str, Any]:
    """A run of six steps over the small data."""
    return {
        "base_model": {"name": "tiny", "revision": "r1", "path": str(base)},
        "data": splits,
        "config": {
            "max_steps": 6,
            "learning_rate": 0.01,
            "batch_size": 2,
            "gradient_accumulation": 2,
            "max_sequence_tokens": 64,
            "lora_rank": 4,
            "eval_every_steps": 3,
            "checkpoint_every_steps": 3,
        },
        "resume_from": None,
        "device": "cpu",
        "threads": 1,
        "adapter_name": "words",
        "lineage": {"dataset": "words", "version": 1, "fingerprint": "f" * 64},
    }


@pytest.fixture
def run_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Run the trainer's main in this process over a folder of its own, and return the folder."""
    from training.trainer.__main__ import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def run(orders: dict[str, Any], name: str = "attempt") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(orders))
        main(folder)
        return folder

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


class ForkedTrainer:
    """An attempt that a warm trainer has forked."""

    def __init__(self, folder: Path, answers: Any) -> None:
        self.folder = folder
        self.pid = int(answers.readline())
        self._answers = answers

    def wait(self) -> int:
        """Its exit status, once it has ended; negative: killed by that signal."""
        return int(self._answers.readline())


@pytest.fixture(scope="session")
def warm_trainer(
    tiny_base: Path, splits: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator["subprocess.Popen[str]"]:
    folder = tmp_path_factory.mktemp("warm")
    (folder / "run.json").write_text(json.dumps(six_steps(tiny_base, splits)))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.warm_trainer", str(folder)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},  # a process with CUDA cannot be forked
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def fork_trainer(warm_trainer: Any, tmp_path: Path) -> Callable[..., ForkedTrainer]:
    """Start an attempt in a process of its own, without its seconds of imports, and with a fault (warm_trainer.py)."""

    def fork(orders: dict[str, Any], name: str, **fault: Any) -> ForkedTrainer:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(orders))
        print(json.dumps({"folder": str(folder), "fault": fault or None}), file=warm_trainer.stdin, flush=True)
        return ForkedTrainer(folder, warm_trainer.stdout)

    return fork


@pytest.fixture
def result_of() -> Callable[[Path], dict[str, Any]]:
    return lambda folder: json.loads((folder / "result.json").read_text())


@pytest.fixture
def events_of() -> Callable[[Path, str], list[dict[str, Any]]]:
    def read(folder: Path, kind: str) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        return [event for event in events if event["kind"] == kind]

    return read


@pytest.fixture
def with_estimates(settings: Any) -> None:
    settings.ESTIMATES = True


@pytest.fixture
def version(bob: Person) -> DatasetVersion:
    return stored_version(bob)
