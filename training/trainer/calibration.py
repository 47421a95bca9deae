"""`python -m training.trainer.calibration ATTEMPT_DIR`: what training costs on this device, measured in some seconds.

A few micro-batches of random tokens go through the trainer's own step, on the base model or, where that is large, on some
layers of its shape with random weights. costs.py makes the cost of any run of it. common/child.py describes the protocol.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.child import Attempt
from training.trainer.config import Quantization, TrainingConfig
from training.trainer.costs import SCORED_AT_ONCE, Costs, Fit, Measurement, Shape

if TYPE_CHECKING:
    import torch

WHOLE_BYTES = 500_000_000
"""A base model whose files are larger is represented by some of its layers."""
SLICE_LAYERS = 2
LONG = 1_024
"""Tokens of the longest document that is measured, or the base model's context where that is less."""
ROUNDS = 3


def main(folder: Path) -> None:
    started_at = _process_began_at()
    with Attempt(folder) as attempt:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer itself does
        threads = attempt.orders["threads"]
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)
        os.environ["HF_HUB_OFFLINE"] = "1"
        with attempt.interruptible():
            attempt.succeed(**measure(Path(attempt.orders["base_path"]), attempt.orders["device"], threads, started_at))


def measure(
    base: Path, wanted: str, threads: int | None, started_at: float, clock: Callable[[], float] = time.time
) -> dict[str, Any]:
    """The device, its free memory, and the costs of training `base` on it, by a clock by which this process began then."""
    import torch

    from training.trainer.attention import use_document_attention
    from training.trainer.lora import add_lora
    from training.trainer.memory import free_bytes, peak_bytes
    from training.trainer.run import choose_device, describe_device

    if threads is not None:
        torch.set_num_threads(threads)
    device = choose_device(wanted)
    free = free_bytes(device) + _used_bytes(device)
    shape, config = Shape.of(base), TrainingConfig()
    model, layers = _model(base, shape, device)
    use_document_attention(model)
    lora = add_lora(model, config)
    optimizer = torch.optim.AdamW([each for layer in lora.values() for each in (layer.lora_A, layer.lora_B)])
    start_s = clock() - started_at
    bench = _Bench(model, optimizer, device, shape.vocabulary, clock)
    long = min(LONG, shape.context_tokens)
    plan = [[long // 8], [long // 8] * 8, [long]]
    points = [bench.measured(lengths) for lengths in plan]
    forward_s = bench.forward_seconds(plan[1])
    bench.forward_seconds([long // 2] * (2 * SCORED_AT_ONCE // long))
    costs = Costs(
        measurement=Measurement(
            layers=layers,
            start_s=start_s,
            free_bytes=free,
            scoring_peak_bytes=peak_bytes(device),
            next_token_s=bench.next_token_seconds(),
            threads=torch.get_num_threads(),
            cores=len(os.sched_getaffinity(0)),
        ),
        seconds=Fit.through([(*_sums(lengths), seconds) for lengths, (seconds, _) in zip(plan, points, strict=True)]),
        peak_bytes=Fit.through([(*_sums(lengths), peak) for lengths, (_, peak) in zip(plan, points, strict=True)]),
        forward_share=forward_s / points[1][0],
    )
    return {"device": describe_device(device), "kind": device.type, "costs": costs.to_json()}


def _model(base: Path, shape: Shape, device: torch.device) -> tuple[Any, int]:
    """The base model as a run has it, or some layers of its shape, and how many layers those are."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from training.trainer.quantization import compute_dtype, load_base

    AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)  # takes its time in a run, too

    if sum(file.stat().st_size for file in base.glob("*.safetensors")) <= WHOLE_BYTES:
        return load_base(base, Quantization.NF4, device), shape.layers
    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    config.num_hidden_layers = SLICE_LAYERS
    model = AutoModelForCausalLM.from_config(config, dtype=compute_dtype(device)).to(device)
    return model.requires_grad_(False), SLICE_LAYERS


class _Bench:
    """Steps of a micro-batch, timed."""

    def __init__(
        self, model: Any, optimizer: Any, device: torch.device, vocabulary: int, clock: Callable[[], float]
    ) -> None:
        self._model, self._optimizer, self._device, self._vocabulary = model, optimizer, device, vocabulary
        self._clock = clock

    def measured(self, lengths: list[int]) -> tuple[float, int]:
        """The fastest step's seconds, and the peak of memory so far: larger batches come later."""
        from training.trainer.memory import peak_bytes

        batch = self._batch(lengths)
        self._model.train()
        seconds = self._fastest(lambda: self._step(batch))
        return seconds, peak_bytes(self._device)

    def forward_seconds(self, lengths: list[int]) -> float:
        import torch

        from training.trainer.loss import loss_sum

        batch = self._batch(lengths)
        self._model.eval()
        with torch.no_grad():
            return self._fastest(lambda: loss_sum(self._model, batch).item())

    def next_token_seconds(self) -> float:
        """Of reading one more token, and saying what comes next."""
        import torch
        from transformers import DynamicCache

        from training.trainer.attention import one_document

        self._model.eval()
        cache = DynamicCache(config=self._model.config)
        inputs = torch.zeros((1, 1), dtype=torch.int64, device=self._device)

        def next_token() -> object:
            output = self._model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
            return int(output.logits[0, -1].argmax())

        with torch.no_grad(), one_document(self._model):
            return self._fastest(next_token)

    def _step(self, batch: Any) -> None:
        from training.trainer.loss import loss_sum

        self._optimizer.zero_grad(set_to_none=True)
        (loss_sum(self._model, batch) / len(batch.targets)).backward()
        self._optimizer.step()

    def _fastest(self, work: Callable[[], object]) -> float:
        """Whatever else the machine does makes it slower, and nothing makes it faster."""
        seconds = math.inf
        for _ in range(1 + ROUNDS):
            began = self._clock()
            work()
            _wait_for(self._device)
            seconds = min(seconds, self._clock() - began)
        return seconds

    def _batch(self, lengths: list[int]) -> Any:
        import numpy as np

        from training.trainer.batches import collate
        from training.trainer.encoding import Examples

        examples = Examples()
        examples.ids = np.random.default_rng(0).integers(0, self._vocabulary, sum(lengths), dtype=np.int32)
        examples.starts = np.concatenate([[0], np.cumsum(lengths)])
        examples.supervised = np.ones(sum(lengths), np.bool_)
        examples.supervised[examples.starts[:-1]] = False
        return collate(examples, range(len(lengths)), self._device)


def _sums(lengths: list[int]) -> tuple[int, int]:
    return sum(lengths), sum(length * length for length in lengths)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def _used_bytes(device: torch.device) -> int:
    """What this process has taken by now of what a run may take."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if device.type == "cpu" else 0


def _process_began_at() -> float:
    """By the clock, before Python was even started."""
    with suppress(OSError, ValueError, IndexError):
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        since_boot = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")
    return time.time()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
