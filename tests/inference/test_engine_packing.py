"""Weights in the order of the processor: the same product, to the last bit in each batch, in no more memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference.engine.engine import Engine, EngineConfig
from inference.engine.request import GenerationRequest
from inference.engine.sequence import Sequence
from tests.inference.made import SHIPPED, SHIPPED_NAME
from training.trainer.config import Quantization
from training.trainer.quantization import dense_weight, load_base

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(SHIPPED_NAME, SHIPPED, device="cpu", slots=1, max_rank=8, batch=32, threads=1))


def bases(engine: Engine) -> list[Any]:
    return [layer.base for layer in engine.slots._layers.values()]


@torch.inference_mode()
def test_products_are_those_of_the_plain_weights(engine: Engine) -> None:
    model = load_base(SHIPPED, Quantization.NF4, torch.device("cpu"), cache_dequantized=True)
    x = {width: torch.randn(5, 1, width) for width in {base.in_features for base in bases(engine)}}
    for name, layer in engine.slots._layers.items():
        plain = model.get_submodule(name)
        expected = torch.nn.functional.linear(x[plain.in_features], dense_weight(plain), plain.bias)
        assert torch.allclose(layer.base(x[plain.in_features]), expected, atol=1e-5), name
    head = model.get_output_embeddings()
    expected = head(x[head.in_features])
    assert torch.allclose(engine._model.get_output_embeddings()(x[head.in_features]), expected, atol=1e-4)


def test_no_second_copy_of_a_layers_weights_is_kept(engine: Engine) -> None:
    assert not any(hasattr(base, "dequantized") for base in bases(engine))


def test_prompts_share_a_pass_up_to_what_a_step_reads(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows may be joined; the tests of batches compare each bit with that of the prompt alone."""
    monkeypatch.setattr(engine._passes, "_joins", True)
    passes: list[list[int]] = []
    read = engine._passes.read

    def watched(parts: list[tuple[Sequence, int]]) -> torch.Tensor:
        passes.append([count for _, count in parts])
        return read(parts)

    monkeypatch.setattr(engine._passes, "read", watched)
    prompts = [list(range(1, tokens + 1)) for tokens in (100, 100, 50, 7, 1, 30, 300, 20)]
    sequences = [engine.begin(GenerationRequest("", max_new_tokens=1), prompt, slot=0) for prompt in prompts]
    under_way = [sequence for sequence in sequences if sequence is not None]
    assert len(under_way) == len(prompts)
    engine.advance(under_way)
    assert passes == [[100, 100, 50], [7], [1], [30], [256], [20]]
    assert [sequence.is_reading for sequence in under_way].count(True) == 1
    for sequence in under_way:
        engine.end(sequence)


def test_a_model_that_is_not_quantized_is_left_as_it_is() -> None:
    config = EngineConfig(
        SHIPPED_NAME, SHIPPED, device="cpu", quantization=Quantization.NONE, slots=1, max_rank=8, batch=2, threads=1
    )
    engine = Engine(config)
    assert all("forward" not in vars(base) for base in bases(engine))
