"""A mixed batch computes, to the last bit, what each of its sequences computes alone."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference.engine.adapters import AdapterRef, AdapterWeights, read_adapter
from inference.engine.engine import Engine, EngineConfig
from inference.engine.request import GenerationRequest
from inference.engine.rows import SIZES
from inference.engine.sequence import Sequence
from tests.inference.made import SHIPPED, SHIPPED_NAME, write_adapter
from training.trainer.config import Quantization

ADAPTERS = 8
PROMPTS = (
    "def add(a, b):\n",
    "import os\n",
    "",
    "class Point:\n    def __init__(self, x, y):\n" * 6,
    "x = [" + "1, " * 90,
)


@pytest.fixture(scope="module")
def shipped() -> Engine:
    config = EngineConfig(
        SHIPPED_NAME, SHIPPED, device="cpu", slots=ADAPTERS, max_rank=16, batch=16, prompt_tokens_a_step=40, threads=1
    )
    return Engine(config)


@pytest.fixture(scope="module")
def weights(shipped: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterWeights | None]:
    """Those of many adapters, no two of one rank and the same layers side by side, and none."""
    root = tmp_path_factory.mktemp("adapters")
    limits = shipped.adapter_limits
    made = [write_adapter(root / f"{seed}", SHIPPED_NAME, limits.layers, seed, "org") for seed in range(ADAPTERS)]
    return [*(read_adapter(folder, ref, limits) for folder, ref in made), None]


@pytest.fixture
def logits(shipped: Engine, monkeypatch: pytest.MonkeyPatch) -> dict[Sequence, list[torch.Tensor]]:
    """What each sequence's tokens were chosen from."""
    kept: dict[Sequence, list[torch.Tensor]] = {}
    chosen = shipped._chosen

    def keeping(sequences: list[Sequence], logits: torch.Tensor) -> Any:
        for row, sequence in enumerate(sequences):
            kept.setdefault(sequence, []).append(logits[row].clone())
        return chosen(sequences, logits)

    monkeypatch.setattr(shipped, "_chosen", keeping)
    return kept


class Place:
    """A sequence with its adapter in a slot."""

    def __init__(self, engine: Engine, weights: AdapterWeights | None, request: GenerationRequest) -> None:
        self._engine = engine
        slot = engine.slots.acquire(weights)
        assert slot is not None
        sequence = engine.begin(request, engine.encode_prompt(request), slot)
        assert sequence is not None
        self.sequence = sequence

    def leave(self) -> None:
        self._engine.end(self.sequence)
        self._engine.slots.release(self.sequence.slot)


def run(engine: Engine, places: list[Place]) -> Iterator[list[Place]]:
    """Advance all, and let go of those that have finished, until none is left."""
    places = list(places)
    while places:
        outcomes = engine.advance([place.sequence for place in places])
        assert all(isinstance(outcome, str) for outcome in outcomes), outcomes
        for place in places:
            if place.sequence.finish_reason is not None:
                place.leave()
        places = [place for place in places if place.sequence.finish_reason is None]
        yield places


def requests(count: int, seed: int) -> list[tuple[int, GenerationRequest]]:
    """Of each the number of its adapter, and what is asked."""
    choice = random.Random(seed)
    return [
        (
            choice.randrange(ADAPTERS + 1),
            GenerationRequest(
                choice.choice(PROMPTS),
                max_new_tokens=choice.randrange(1, 60),
                temperature=choice.choice((0.0, 0.0, 0.7, 1.3)),
                top_p=choice.choice((1.0, 0.9)),
                top_k=choice.choice((0, 5, 50)),
                repetition_penalty=choice.choice((1.0, 1.2)),
                seed=number,
                logprobs=True,
            ),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_each_bit_is_that_of_the_sequence_alone(
    shipped: Engine,
    weights: list[AdapterWeights | None],
    logits: dict[Sequence, list[torch.Tensor]],
    seed: int,
) -> None:
    """Sequences join one after another, and leave as they finish: the batch is of every size, and order, and length."""
    asked = requests(24, seed)
    alone = []
    for number, request in asked:
        place = Place(shipped, weights[number], request)
        for _ in run(shipped, [place]):
            pass
        alone.append(place.sequence)

    choice = random.Random(seed)
    waiting: list[int] = list(range(len(asked)))
    running: list[Place] = []
    choice.shuffle(waiting)
    by_number: dict[int, Sequence] = {}
    while waiting or running:
        while waiting and len(running) < 16 and choice.random() < 0.7:
            number = waiting.pop()
            place = Place(shipped, weights[asked[number][0]], asked[number][1])
            running.append(place)
            by_number[number] = place.sequence
        choice.shuffle(running)
        running = next(run(shipped, running)) if running else []
    together = [by_number[number] for number in range(len(asked))]

    for one, other in zip(alone, together, strict=True):
        assert one.text == other.text
        assert one.logprobs == other.logprobs
        assert len(logits[one]) == len(logits[other]) == one.completion_tokens
        for ours, theirs in zip(logits[one], logits[other], strict=True):
            assert torch.equal(ours, theirs)
    assert shipped.slots.in_use() == 0
    assert shipped.free_tokens == shipped._passes.pages.tokens


def test_a_prompt_in_parts_is_the_same_prompt(
    shipped: Engine, weights: list[AdapterWeights | None], logits: dict[Sequence, list[torch.Tensor]]
) -> None:
    """What comes of reading in parts differs in rounding alone from reading at once."""
    request = GenerationRequest(PROMPTS[3], max_new_tokens=1)
    place = Place(shipped, weights[0], request)
    tokens = place.sequence.unread
    assert len(tokens) > 2 * shipped.config.prompt_tokens_a_step
    steps = len(list(run(shipped, [place])))
    assert steps == -(-len(tokens) // shipped.config.prompt_tokens_a_step)
    slot = shipped.slots.acquire(weights[0])
    assert slot is not None
    with torch.inference_mode():
        hidden = shipped._passes.whole(tokens, slot)
        whole = shipped._model.get_output_embeddings()(hidden[-1])
    shipped.slots.release(slot)
    assert torch.allclose(logits[place.sequence][0], whole, atol=1e-4)


def test_the_sizes_of_batches_are_asked_of_the_machine(shipped: Engine) -> None:
    """Each size that is used gives every row the bits that it has in the largest, at every place."""
    sizes = shipped._passes.sizes
    assert sizes[-1] == 16
    assert set(sizes) <= set(SIZES)
    x = torch.randn(16, 1, 192)
    layer = shipped._model.model.layers[0].mlp.c_fc.base
    whole = layer(x)
    for size in sizes:
        for first in range(16 - size + 1):
            assert torch.equal(layer(x[first : first + size].clone()), whole[first : first + size])


def test_what_a_sequence_left_behind_is_never_read(
    shipped: Engine, weights: list[AdapterWeights | None], logits: dict[Sequence, list[torch.Tensor]]
) -> None:
    """Pages that were used before hold numbers that are not finite: nothing of them gets into what comes next."""
    request = GenerationRequest("def add(a, b):\n", max_new_tokens=12)
    first = Place(shipped, weights[1], request)
    for _ in run(shipped, [first]):
        pass
    pages = shipped._passes.pages
    with torch.inference_mode():
        for kept in (*pages.keys, *pages.values):
            kept[1:] = torch.nan
    second = Place(shipped, weights[1], request)
    for _ in run(shipped, [second]):
        pass
    assert second.sequence.text == first.sequence.text
    for ours, theirs in zip(logits[first.sequence], logits[second.sequence], strict=True):
        assert torch.equal(ours, theirs)


def test_a_pass_that_fails_fails_whom_it_cannot_do(
    shipped: Engine, weights: list[AdapterWeights | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of its batch have their token, and no token twice."""
    request = GenerationRequest("def add(a, b):\n", max_new_tokens=6)
    alone = Place(shipped, weights[2], request)
    for _ in run(shipped, [alone]):
        pass
    good, bad = Place(shipped, weights[2], request), Place(shipped, weights[3], request)
    shipped.advance([good.sequence, bad.sequence])
    decode = shipped._passes.decode

    def fails(sequences: list[Sequence]) -> Any:
        found = decode(sequences)
        if bad.sequence in sequences:
            raise ZeroDivisionError
        return found

    monkeypatch.setattr(shipped._passes, "decode", fails)
    outcomes = shipped.advance([good.sequence, bad.sequence])
    assert isinstance(outcomes[0], str)
    assert isinstance(outcomes[1], ZeroDivisionError)
    bad.leave()
    for _ in run(shipped, [good]):
        pass
    assert good.sequence.text == alone.sequence.text
    assert good.sequence.completion_tokens == alone.sequence.completion_tokens


def test_an_adapter_of_zeros_is_no_adapter(
    shipped: Engine, weights: list[AdapterWeights | None], logits: dict[Sequence, list[torch.Tensor]]
) -> None:
    adapter = weights[0]
    assert adapter is not None
    layers = {name: (a, torch.zeros_like(b)) for name, (a, b) in adapter.layers.items()}
    nothing = AdapterWeights(AdapterRef("org", "zeros", "0" * 64), adapter.rank, layers)
    request = GenerationRequest("def add(a, b):\n", max_new_tokens=8)
    places = [Place(shipped, each, request) for each in (nothing, None)]
    for _ in run(shipped, places):
        pass
    with_zeros, without = (logits[place.sequence] for place in places)
    for ours, theirs in zip(with_zeros, without, strict=True):
        assert torch.equal(ours, theirs)


def test_texts_differ_from_adapter_to_adapter(shipped: Engine, weights: list[AdapterWeights | None]) -> None:
    """Or nothing above would show anything."""
    request = GenerationRequest("def add(a, b):\n", max_new_tokens=16)
    places = [Place(shipped, each, request) for each in weights]
    for _ in run(shipped, places):
        pass
    assert len({place.sequence.text for place in places}) == len(places)


def test_the_window_of_a_model_is_kept(base_path: Path, tmp_path: Path) -> None:
    """With a window of a few tokens the engine says what transformers says."""
    folder = tmp_path / "windowed"
    shutil.copytree(base_path, folder)
    config = json.loads((folder / "config.json").read_text()) | {"sliding_window": 5}
    (folder / "config.json").write_text(json.dumps(config))
    engine = Engine(
        EngineConfig("tiny", folder, device="cpu", quantization=Quantization.NONE, slots=1, max_rank=8, threads=1)
    )
    prompt = "def add(a, b):\n    return"
    place = Place(engine, None, GenerationRequest(prompt, max_new_tokens=20))
    found = []
    for _ in run(engine, [place]):
        found += place.sequence.unread
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")
    expected = model.generate(**ids, do_sample=False, max_new_tokens=20, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
    assert found == expected.tolist()
