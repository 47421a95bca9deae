import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Starcoder2ForCausalLM

from training.pretraining.build import StaleMeasurementError, measure_again
from training.pretraining.card import digest, shared_lines
from training.pretraining.cli import SHIPPED_MODEL
from training.pretraining.config import BaseModelConfig
from training.pretraining.corpus import Corpus, read_corpus
from training.pretraining.fit import Progress, TokenizedCorpus, cut_windows, fit, learning_rate_factor
from training.pretraining.measure import code_length_bits, measure
from training.pretraining.tokenizer import END_OF_TEXT

MAX_MODEL_BYTES = 12_000_000
MAX_BITS_PER_BYTE = 1.45
TINY = BaseModelConfig(
    vocabulary_size=4096,
    hidden_size=64,
    intermediate_size=64,
    layers=1,
    heads=1,
    context_tokens=64,
    short_context_tokens=32,
    tokens_per_step=128,
    tokens_per_pass=64,
    warmup_steps=1,
    minutes=0.01,
    bf16=False,
    compile=False,
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus(BaseModelConfig().seed)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(SHIPPED_MODEL)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(SHIPPED_MODEL).eval()


@pytest.fixture(scope="module")
def measured() -> dict:
    return json.loads((SHIPPED_MODEL / "measurement.json").read_text())


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode("utf-8", "surrogateescape"))
    return root


def source(name: str, lines: int = 200) -> str:
    return "".join(
        f"def {name}_{chr(97 + i % 26) * (i // 26 + 1)}(value): return {name}(value)\n" for i in range(lines)
    )


# The corpus


def test_twenty_ordinary_modules_are_left_out_of_training(corpus: Corpus):
    assert len(corpus.held_out) == 20
    assert all(4_000 <= document.size_bytes <= 60_000 for document in corpus.held_out)
    assert not any(document.is_test for document in corpus.held_out)
    held_out = {document.path for document in corpus.held_out}
    assert held_out.isdisjoint(document.path for document in corpus.training)
    assert {digest(document) for document in corpus.held_out}.isdisjoint(map(digest, corpus.training))


def test_the_choice_depends_on_the_seed_alone(tmp_path: Path):
    files = {f"module_{i}.py": source(f"name{i}") for i in range(60)}
    forwards = write_tree(tmp_path / "forwards", files)
    backwards = write_tree(tmp_path / "backwards", dict(reversed(files.items())))
    first = [document.path for document in read_corpus(1, forwards).held_out]
    assert first == [document.path for document in read_corpus(1, backwards).held_out]
    assert first != [document.path for document in read_corpus(2, forwards).held_out]


def test_a_new_file_changes_at_most_one_held_out_module(tmp_path: Path):
    root = write_tree(tmp_path, {f"module_{i}.py": source(f"name{i}") for i in range(60)})
    before = {document.path for document in read_corpus(1, root).held_out}
    write_tree(root, {"another.py": source("another")})
    after = {document.path for document in read_corpus(1, root).held_out}
    assert len(before - after) <= 1


def test_what_gives_a_held_out_module_away_is_left_out_too(tmp_path: Path):
    own = {"queue/locks.py": source("locks")}
    left_out = {
        "test/test_locks.py": "import locks\n",
        "test/test_queue/test_locks.py": "import queue.locks\n",
        "test/test_queue.py": "import queue\n",
        # long, so that it is no candidate itself
        "vendored/old.py": source("locks") * 20,
    }
    kept = {
        "test/test_blocks.py": "import blocks\n",
        "test/test_queue/test_events.py": "import queue.events\n",
        "small.py": "import locks\n",
    }
    corpus = read_corpus(1, write_tree(tmp_path, {**own, **left_out, **kept}))
    assert [document.path for document in corpus.held_out] == list(own)
    assert {document.path for document in corpus.training} == set(kept)
    assert [document.path for document in corpus.modules] == ["small.py"]


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("site-packages/other.py", "x = 1\n", "not the standard library"),
        ("broken.py", "name = '\udcff'\n", "not UTF-8"),
        ("table.py", "'''Codec generated from a table with gencodec.py.'''\n", "generated"),
        ("numbers.py", "x = (1234567890, 1234567890, 1234567890)\n", "a table of numbers"),
        ("zz_copy.py", "import first\n", "a copy"),
        ("empty.py", "", "empty"),
    ],
)
def test_what_teaches_nothing_is_skipped(tmp_path: Path, path: str, text: str, why: str):
    corpus = read_corpus(1, write_tree(tmp_path, {"first.py": "import first\n", path: text}))
    assert [document.path for document in corpus.training] == ["first.py"], why


def test_lines_that_siblings_share_are_counted(tmp_path: Path):
    half = source("half", lines=100)
    corpus = read_corpus(
        1, write_tree(tmp_path, {"whole.py": half + source("own", lines=100), "short.py": half[:1_000]})
    )
    assert [document.path for document in corpus.held_out] == ["whole.py"]
    expected = half[:1_000].count("\n") / 200
    assert shared_lines(corpus)["whole.py"] == pytest.approx(expected)
    assert expected > 0.05


# The tokenizer


@given(st.text())
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back_in_no_more_tokens_than_bytes(tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) <= len(text.encode())


@pytest.mark.parametrize("text", ["", " a  .  , b !\r\n\t", "\x00\x7f", "naïve 😀 ﷽ \u200b", f"a{END_OF_TEXT}b"])
def test_awkward_text_comes_back(tokenizer, text: str):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_nothing_is_added_and_one_token_ends_starts_and_pads(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.encode(END_OF_TEXT) == [tokenizer.eos_token_id]
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == tokenizer.pad_token_id == 0


# The loop


def test_a_width_that_cannot_be_quantized_is_refused():
    with pytest.raises(ValueError, match=r"hidden_size is 96; .* multiple of 64"):
        BaseModelConfig(hidden_size=96, heads=1)
    with pytest.raises(ValueError, match=r"kv_heads is 32; .* multiple of 64"):
        BaseModelConfig(hidden_size=192, heads=6, kv_heads=1)


def test_an_epoch_has_each_module_and_a_share_of_the_tests():
    modules = [torch.full((33,), value) for value in (1, 2)]
    tests = [torch.full((33,), value) for value in (11, 12)]
    seen = [cut_windows(TokenizedCorpus(modules, tests), TINY, epoch, 32).unique().tolist() for epoch in (0, 1)]
    assert seen == [[1, 2, 11], [1, 2, 12]]


def test_the_learning_rate_ends_with_the_time():
    factors = [learning_rate_factor(Progress(elapsed_s=s, step=99), TINY) for s in (0.0, 0.21, 0.405, 0.6)]
    assert factors == pytest.approx([1, 1, 0.5, 0])


def test_training_lowers_the_loss_and_a_resumed_run_goes_on(tmp_path: Path):
    torch.manual_seed(0)
    corpus = TokenizedCorpus(modules=[torch.arange(400) % 7 + 1], tests=[])
    losses: list[float] = []
    checkpoints: list[int] = []

    def train(steps: int) -> Progress:
        config = replace(TINY, minutes=steps / 60, checkpoint_every_s=4)
        return fit(
            Starcoder2ForCausalLM(config.architecture()),
            corpus,
            config,
            state_file=tmp_path / "state.pt",
            on_step=lambda progress: losses.append(progress.loss_per_token),
            on_checkpoint=lambda progress: checkpoints.append(progress.step),
            clock=count().__next__,  # a second a step
        )

    assert train(10).step == len(losses) == 10
    assert checkpoints == [4, 8]
    assert losses[-1] < losses[0] - 1
    assert train(10).step == 10  # its time was used up before
    assert len(losses) == 10
    resumed = train(15)
    assert (resumed.step, resumed.tokens, resumed.elapsed_s) == (15, 15 * TINY.tokens_per_step, 15)
    assert losses[10] < losses[0] - 1  # its weights came back


def test_each_token_is_measured_once_whatever_the_window(tokenizer):
    torch.manual_seed(0)
    small = Starcoder2ForCausalLM(TINY.architecture()).eval()
    text = "def f(x):\n    return x\n" * 40
    whole = code_length_bits(small, tokenizer, text)
    # An untrained model finds every token about equally likely, so the sum tells how many were counted.
    tokens = len(tokenizer.encode(text)) + 1
    assert tokens > 4 * TINY.context_tokens
    assert whole == pytest.approx(tokens * 12, rel=0.05)


# The model that ships


def test_the_shipped_model_is_small_and_can_be_quantized(model):
    assert (SHIPPED_MODEL / "model.safetensors").stat().st_size <= MAX_MODEL_BYTES
    weights = load_file(SHIPPED_MODEL / "model.safetensors")
    assert all(width % 64 == 0 for name, weight in weights.items() if ".layers." in name for width in weight.shape)
    assert model.config.model_type == "starcoder2"
    assert model.config.max_position_embeddings >= 1024
    assert model.num_parameters() == json.loads((SHIPPED_MODEL / "measurement.json").read_text())["parameters"]


def test_the_shipped_model_keeps_its_promise_on_a_held_out_module(model, tokenizer, corpus: Corpus, measured: dict):
    assert measured["bits_per_byte"] <= MAX_BITS_PER_BYTE
    recorded = {module["path"]: module for module in measured["held_out"]}
    unchanged = [d for d in corpus.held_out if d.path in recorded and digest(d) == recorded[d.path]["sha256"]]
    if not unchanged:
        pytest.skip("another Python release: none of its files is one that the model was measured on")
    document = min(unchanged, key=lambda document: document.size_bytes)
    bits_per_byte = measure(model, tokenizer, [document]).bits_per_byte
    assert bits_per_byte == pytest.approx(recorded[document.path]["bits_per_byte"], abs=0.005)


def test_the_shipped_model_continues_code_and_not_noise(model, tokenizer):
    code = "def __init__(self, name):\n    self.name = name\n"
    assert code_length_bits(model, tokenizer, code) < 2.2 * len(code)
    assert code_length_bits(model, tokenizer, code[::-1]) > 1.5 * code_length_bits(model, tokenizer, code)


def test_measuring_against_another_text_is_refused(tmp_path: Path, measured: dict):
    measured["held_out"][0] |= {"sha256": "0" * 64}
    (tmp_path / "measurement.json").write_text(json.dumps(measured))
    with pytest.raises(StaleMeasurementError, match=measured["held_out"][0]["path"]):
        measure_again(tmp_path, "cpu")
