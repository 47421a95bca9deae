"""The numbers behind a step: attention, loss, LoRA, 4 bits, schedule, and the order of rows."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.trainer.config import Quantization, Scheduler, TrainingConfig

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

from training.trainer.attention import use_document_attention, window_mask  # noqa: E402
from training.trainer.batches import Sampler, collate, fill  # noqa: E402
from training.trainer.encoding import Examples  # noqa: E402
from training.trainer.fit import log_every_s  # noqa: E402
from training.trainer.lora import LoraLinear, add_lora, base_only  # noqa: E402
from training.trainer.loss import loss_sum  # noqa: E402
from training.trainer.quantization import BaseModelError, dense_weight, load_base  # noqa: E402
from training.trainer.schedule import learning_rate  # noqa: E402

CPU = torch.device("cpu")
CONFIG = TrainingConfig(lora_rank=4, lora_dropout=0.0)


@pytest.fixture
def examples() -> Examples:
    """Five rows of 3 to 40 tokens, the later part of each counted."""
    made = Examples()
    lengths = [3, 40, 1 + 16, 7, 25]
    random = np.random.default_rng(3)
    made.ids = random.integers(1, 290, sum(lengths)).astype(np.int32)
    made.supervised = np.concatenate([np.arange(length) >= max(1, length // 3) for length in lengths])
    made.starts = np.concatenate([[0], np.cumsum(lengths)])
    return made


@pytest.fixture(params=[True, False], ids=["cached", "four bits"])
def lora_model(tiny_base: Path, request: pytest.FixtureRequest) -> tuple[Any, dict[str, LoraLinear]]:
    model = load_base(tiny_base, Quantization.NF4, CPU, cache_dequantized=request.param)
    use_document_attention(model)
    layers = add_lora(model, CONFIG)
    torch.manual_seed(1)
    for layer in layers.values():
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    return model, layers


def gradients(model: Any, layers: dict[str, LoraLinear], batch: Any) -> list[Any]:
    model.train()
    model.zero_grad()
    loss_sum(model, batch).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]


def test_the_gradient_after_a_validation_equals_the_one_before_it(lora_model: Any, examples: Examples) -> None:
    model, layers = lora_model
    batch = collate(examples, range(5), CPU)
    before = gradients(model, layers, batch)
    model.eval()
    with torch.no_grad(), base_only(layers):
        validated = loss_sum(model, batch)
    after = gradients(model, layers, batch)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    with torch.no_grad(), base_only(layers):
        assert torch.equal(loss_sum(model, batch), validated)


def test_no_four_bit_layer_repacks_its_weights(tiny_base: Path) -> None:
    """With cached weights the layers never get to do it; an engine that keeps only 4 bits depends on the switch."""
    model = load_base(tiny_base, Quantization.NF4, CPU, cache_dequantized=False)
    layers = [layer for layer in model.modules() if hasattr(layer, "support_avx512bf16_for_cpu")]
    assert len(layers) == 2 * 6
    packed = [layer.weight.clone() for layer in layers]
    with torch.no_grad():
        model(input_ids=torch.arange(1, 9)[None])
    assert all(torch.equal(layer.weight, before) for layer, before in zip(layers, packed, strict=True))


def test_the_loss_at_counted_positions_equals_that_of_all_logits(
    lora_model: Any, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = lora_model
    monkeypatch.setattr("training.trainer.loss.LOGITS_AT_ONCE", 7 * 300)  # several uneven chunks
    expected: Any = 0.0
    for row in range(5):
        batch = collate(examples, [row], CPU)
        logits = model(
            input_ids=batch.ids, position_ids=batch.positions, document_lengths=batch.lengths, use_cache=False
        ).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], batch.ids[0, 1:], reduction="none")
        expected += losses[torch.from_numpy(examples.row(row)[1][1:])].sum()
    expected.backward()
    wanted = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    batch = collate(examples, range(5), CPU)
    loss = loss_sum(model, batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for gradient, parameter in zip(wanted, (p for p in model.parameters() if p.requires_grad), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_a_rows_loss_does_not_depend_on_its_neighbours(lora_model: Any, examples: Examples) -> None:
    model, _ = lora_model
    with torch.no_grad():
        single = [loss_sum(model, collate(examples, [row], CPU)).item() for row in range(5)]
        together = loss_sum(model, collate(examples, [4, 0, 2, 1, 3], CPU)).item()
    assert together == pytest.approx(sum(single), rel=1e-6)


def test_positions_begin_anew_with_each_row(examples: Examples) -> None:
    """However many rows lie before it, none comes to places beyond the base model's context."""
    batch = collate(examples, [0, 3, 2], CPU)
    assert batch.positions.tolist() == [[*range(3), *range(7), *range(17)]]
    assert batch.lengths == [3, 7, 17]


def test_document_attention_is_the_models_own_attention(tiny_base: Path, examples: Examples) -> None:
    plain = load_base(tiny_base, Quantization.NONE, CPU)
    ours = load_base(tiny_base, Quantization.NONE, CPU)
    use_document_attention(ours)
    for row in range(5):
        batch = collate(examples, [row], CPU)
        with torch.no_grad():
            expected = plain(input_ids=batch.ids).logits
            got = ours(input_ids=batch.ids, position_ids=batch.positions, document_lengths=batch.lengths).logits
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_sliding_window_sees_that_many_tokens() -> None:
    assert window_mask(4, 2, CPU).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]


def test_cached_weights_give_the_numbers_of_four_bits(tiny_base: Path) -> None:
    ids = torch.arange(1, 33)[None]
    cached, four_bits, dense = (
        load_base(tiny_base, quantization, CPU, cache_dequantized=cache)
        for quantization, cache in ((Quantization.NF4, True), (Quantization.NF4, False), (Quantization.NONE, None))
    )
    with torch.no_grad():
        got, expected, unquantized = (model(input_ids=ids).logits for model in (cached, four_bits, dense))
    assert torch.equal(got, expected)
    assert not torch.allclose(got, unquantized, rtol=1e-3)
    layer = four_bits.model.layers[0].mlp.c_fc
    assert layer.weight.quant_state.nested  # double-quantized
    assert layer.weight.numel() == 64 * 128 // 2
    assert dense_weight(layer).shape == (128, 64)
    assert type(four_bits.lm_head) is torch.nn.Linear


@pytest.mark.parametrize("damage", ["truncated", "no weights", "a weight less", "no such folder"])
def test_a_base_model_that_is_not_whole_is_refused(damage: str, tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_base, folder)
    weights = folder / "model.safetensors"
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "no weights":
            weights.unlink()
        case "a weight less":
            tensors = load_file(weights)
            del tensors["model.layers.1.mlp.c_fc.weight"]
            save_file(tensors, weights, metadata={"format": "pt"})
        case _:
            folder = tmp_path / "absent"
    with pytest.raises(BaseModelError, match=folder.name):
        load_base(folder, Quantization.NF4, CPU)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("cache", [True, False])
def test_lora_computes_what_peft_computes(dropout: float, cache: bool, tiny_base: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = replace(CONFIG, lora_dropout=dropout, target_modules=("c_fc",))
    base = load_base(tiny_base, Quantization.NF4, CPU, cache_dequantized=cache)
    settings = LoraConfig(r=4, lora_alpha=32, lora_dropout=dropout, target_modules=["c_fc"])
    peft_model: Any = get_peft_model(load_base(tiny_base, Quantization.NF4, CPU), settings)
    peft_layer = peft_model.base_model.model.model.layers[0].mlp.c_fc
    ours = add_lora(base, config)["model.layers.0.mlp.c_fc"]
    torch.nn.init.normal_(ours.lora_B)
    peft_layer.lora_A["default"].weight.data = ours.lora_A.data.clone()
    peft_layer.lora_B["default"].weight.data = ours.lora_B.data.clone()
    outputs, inputs = [], []
    for layer in (ours.train(), peft_layer.train()):
        x = torch.linspace(-1, 1, 5 * 64).view(1, 5, 64).requires_grad_()
        torch.manual_seed(2)
        output = layer(x)
        output.sin().sum().backward()
        outputs.append(output.detach())
        inputs.append(x.grad)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inputs[0], inputs[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.lora_A.grad, peft_layer.lora_A["default"].weight.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.lora_B.grad, peft_layer.lora_B["default"].weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_the_learning_rate_is_that_of_transformers(scheduler: Scheduler) -> None:
    from transformers import get_scheduler

    names = {Scheduler.COSINE: "cosine", Scheduler.LINEAR: "linear", Scheduler.CONSTANT: "constant_with_warmup"}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.002)
    theirs = get_scheduler(names[scheduler], optimizer, num_warmup_steps=math.ceil(0.1 * 25), num_training_steps=25)
    config = TrainingConfig(learning_rate=0.002, scheduler=scheduler, warmup_ratio=0.1)
    for step in range(25):
        assert learning_rate(step, 25, config) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("lengths", "max_tokens", "groups"),
    [
        ([5, 5, 5], 10, [[0, 1], [2]]),
        ([5, 6, 5], 10, [[0], [1], [2]]),
        ([20, 1, 1], 10, [[0], [1, 2]]),
        ([10], 10, [[0]]),
        ([1, 1, 1], 3, [[0, 1, 2]]),
    ],
)
def test_rows_fill_groups_in_their_order(lengths: list[int], max_tokens: int, groups: list[list[int]]) -> None:
    assert [group.tolist() for group in fill(np.array(lengths), max_tokens)] == groups


@pytest.mark.parametrize("packing", [True, False])
def test_each_epoch_sees_each_row_once_in_an_order_of_its_own(packing: bool) -> None:
    lengths = np.random.default_rng(1).integers(4, 64, 101)
    config = TrainingConfig(epochs=2.5, batch_size=3, gradient_accumulation=2, packing=packing)
    sampler = Sampler(lengths, config, 64)
    steps = [sampler.rows(step) for step in range(sampler.total_steps)]
    rows = [row for step in steps for micro_batch in step for row in micro_batch.tolist()]
    assert sorted(rows[:101]) == sorted(rows[101:202]) == list(range(101))
    assert rows[:101] != rows[101:202]
    assert 101 * 2.4 <= len(rows) <= 101 * 2.6
    for micro_batch in (micro_batch for step in steps for micro_batch in step):
        assert len(micro_batch) <= 3 or (packing and lengths[micro_batch].sum() <= 3 * 64)
    again = Sampler(lengths, config, 64)  # asked in any order, it answers the same
    for step in reversed(range(sampler.total_steps)):
        assert all(np.array_equal(a, b) for a, b in zip(again.rows(step), steps[step], strict=True))
    assert Sampler(lengths, replace(config, max_steps=4), 64).total_steps == 4


def test_the_log_of_a_long_run_is_thinned() -> None:
    def written(days: float) -> int:
        count, at_s = 0, 0.0
        while at_s < days * 86_400:
            count, at_s = count + 1, at_s + log_every_s(at_s)
        return count

    assert (log_every_s(0), log_every_s(200), log_every_s(3600)) == (0.2, 0.2, 3.6)
    assert 6_000 < written(1) < 7_500
    assert written(30) < 11_000
