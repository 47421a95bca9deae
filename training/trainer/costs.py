"""What a run costs in time and memory: a measurement of its device, and arithmetic. Imports neither torch nor Django.

A micro-batch of documents with the lengths L costs  a + b * sum(L) + c * sum(L^2),  in seconds as in bytes at the peak: what
does not depend on it, what each token takes, and what attention takes, which looks from each token at those before it.
Calibration solves that for one recipe. Of another one b changes as the floating point operations, or the numbers that are
kept for the backward pass, of each token do; and the weights and their adapter take what they take.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.trainer.config import Quantization, TrainingConfig

NO_DROPOUT = 0.85
"""Of the time of a token with dropout of an adapter's inputs: measured on a CPU."""
NF4_BYTES = 0.53
"""Of a weight in 4 bits, with what its blocks need."""
CACHE_SHARE = 0.25
"""As quantization.py has it: the dequantized weights are kept where they take at most this share of the free memory."""

MAX_HALVINGS = 3
"""As halving.py has it."""
READ_TOKENS_A_SECOND = 500_000
SAVE_S = 0.05
SCORED_AT_ONCE = 4_096
"""Tokens of held-out rows that go forward together: as evaluation.py has it."""
TEST_PASSES = 2
"""Over the test rows: the adapter's, and the base model's."""
SAMPLE_TOKENS = 3 * 48
SAMPLES_S = 5.0
"""At most, for so many new tokens beside a validation: as samples.py has it."""
EXCHANGED_BYTES_A_SECOND = 500_000_000
"""Of gradients, by processes of one host without accelerators: measured with two. Between accelerators it is left out."""
_INPUTS = {
    "q_proj": "first",
    "k_proj": "first",
    "v_proj": "first",
    "o_proj": "second",
    "c_fc": "third",
    "c_proj": "fourth",
}
"""Which linear layers of a block have the same input, and keep it once."""


@dataclass(frozen=True)
class Shape:
    """A base model's sizes."""

    layers: int
    hidden: int
    intermediate: int
    key_value: int
    """The width of all keys of a token, and of its values."""
    vocabulary: int
    context_tokens: int

    @classmethod
    def of(cls, folder: Path) -> Shape:
        """Of its config.json. Raises OSError, ValueError, and KeyError where that cannot be read."""
        config = json.loads((folder / "config.json").read_bytes())
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            intermediate=config["intermediate_size"],
            key_value=hidden // heads * config.get("num_key_value_heads", heads),
            vocabulary=config["vocab_size"],
            context_tokens=config["max_position_embeddings"],
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Of the linear layers of one block, how many numbers go in and out."""
        return {
            "q_proj": (self.hidden, self.hidden),
            "k_proj": (self.hidden, self.key_value),
            "v_proj": (self.hidden, self.key_value),
            "o_proj": (self.hidden, self.hidden),
            "c_fc": (self.hidden, self.intermediate),
            "c_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear_weights(self) -> int:
        """Of all blocks: those that are quantized."""
        return self.layers * sum(a * b for a, b in self.linears.values())

    @property
    def embedding_weights(self) -> int:
        return self.vocabulary * self.hidden

    def adapter_weights(self, config: TrainingConfig) -> int:
        return self.layers * config.lora_rank * sum(sum(self.linears[name]) for name in config.target_modules)

    def token_flops(self, config: TrainingConfig, counted_share: float, layers: int) -> float:
        """Of a token's way forward and back, less attention. The frozen weights have no gradients of their own."""
        adapter = config.lora_rank * sum(sum(self.linears[name]) for name in config.target_modules)
        block = 4 * sum(a * b for a, b in self.linears.values()) + 6 * adapter
        return layers * block + counted_share * 4 * self.embedding_weights

    def token_numbers(self, config: TrainingConfig, layers: int) -> float:
        """How many numbers of a token are kept for its way back."""
        of_attention = 2 * self.hidden + 2 * self.key_value
        others = 2 * self.hidden + 2 * self.intermediate + of_attention
        inner = config.lora_rank * len(config.target_modules)
        if config.lora_dropout == 0:
            inputs = sum({_INPUTS[name]: self.linears[name][0] for name in config.target_modules}.values())
        else:  # each layer has an input of its own, and which of it was zeroed
            inputs = 2 * sum(self.linears[name][0] for name in config.target_modules)
        return layers * (others + inner + inputs)


@dataclass(frozen=True)
class Fit:
    """a + b * tokens + c * sum of squared lengths."""

    fixed: float
    token: float
    square: float

    @classmethod
    def through(cls, points: Sequence[tuple[int, int, float]]) -> Fit:
        """Through three points (tokens, squares, value), of which the last two have the same tokens; nothing is negative."""
        (t1, s1, v1), (t2, s2, v2), (_, s3, v3) = points
        square = max(0.0, (v3 - v2) / (s3 - s2))
        token = max(0.0, (v2 - v1 - square * (s2 - s1)) / (t2 - t1))
        return cls(max(0.0, v1 - token * t1 - square * s1), token, square)

    def at(self, tokens: float, squares: float, batches: float = 1) -> float:
        return self.fixed * batches + self.token * tokens + self.square * squares


@dataclass(frozen=True)
class Measurement:
    layers: int
    """Of the model that was measured."""
    start_s: float
    """From the start of its process until it could begin a step."""
    free_bytes: int
    """The memory that a run may take."""
    scoring_peak_bytes: int
    """The peak once SCORED_AT_ONCE tokens have gone forward alone, after all else that was measured."""
    next_token_s: float = 0.0
    """Of one more token of a text."""
    threads: int = 1
    """Of a process's own, as it was measured."""
    cores: int = 1
    """Of the host, for all of its processes: where it was not noted, several are no faster than one."""


@dataclass(frozen=True)
class Costs:
    """Of the default recipe, on a device."""

    measurement: Measurement
    seconds: Fit
    """Of a micro-batch there and back."""
    peak_bytes: Fit
    """Of the process, or of what it has of an accelerator's memory."""
    forward_share: float
    """Of a micro-batch's time, that of its way forward alone."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Costs:
        return cls(
            measurement=Measurement(**value["measurement"]),
            seconds=Fit(**value["seconds"]),
            peak_bytes=Fit(**value["peak_bytes"]),
            forward_share=value["forward_share"],
        )


@dataclass(frozen=True)
class Share:
    """What that one of a run's processes that has most to do in a step does of it, on average."""

    tokens: float = 1.0
    squares: float = 1.0
    micro_batches: float = 1.0


@dataclass(frozen=True)
class Workload:
    """What a run has to do: sums over its whole length, of all of its processes."""

    steps: int
    tokens: int
    squares: float
    """The sum of the squared lengths of all documents trained on."""
    micro_batches: int
    largest: tuple[int, float]
    """Tokens and squares of what needs most memory at once: a micro-batch, or a process's part of it."""
    longest: int
    """Tokens of the longest document."""
    scored_tokens: float
    """Tokens that only go forward: validations, and the test split once for each adapter that is measured on it."""
    scored_squares: float
    read_tokens: float
    """Tokens that are made of text at the start."""
    checkpoints: int
    counted_share: float
    samples: int = 0
    """Validations beside which there are samples."""
    processes: int = 1
    share: Share = Share()

    def halved(self) -> Workload:
        """With micro-batches as small as a run makes them before it gives up for want of memory."""
        return replace(self, largest=self.part_of_largest(2**MAX_HALVINGS))

    def part_of_largest(self, parts: int) -> tuple[int, float]:
        """Tokens and squares of the largest of so many parts, if rows allow."""
        tokens, squares = self.largest
        return max(self.longest, tokens // parts), max(self.longest**2, squares / parts)


@dataclass(frozen=True)
class Estimator:
    """The costs of a base model's runs on a device."""

    shape: Shape
    costs: Costs
    is_cpu: bool

    def step_seconds(self, work: Workload, config: TrainingConfig) -> float:
        """Of all steps together: the processes wait for the one that has most to do, and exchange their gradients."""
        measured, default = self.costs.seconds, TrainingConfig()
        flops = self.shape.token_flops(config, work.counted_share, self.shape.layers)
        token = measured.token * flops / self.shape.token_flops(default, 1.0, self.costs.measurement.layers)
        if config.lora_dropout == 0:
            token *= NO_DROPOUT
        deeper, share = self._deeper, work.share
        stepping = Fit(measured.fixed * deeper, token, measured.square * deeper).at(
            work.tokens * share.tokens, work.squares * share.squares, work.micro_batches * share.micro_batches
        )
        return stepping * self._crowded(work, self.costs.measurement.threads) + self._exchange_seconds(work, config)

    def other_seconds(self, work: Workload) -> float:
        """Of what is not in a step: the start, validations and their samples, the test split, checkpoints."""
        measured = self.costs.measurement
        forward = (
            self.costs.forward_share
            * self._deeper
            * self.costs.seconds.at(work.scored_tokens, work.scored_squares, work.scored_tokens / SCORED_AT_ONCE)
        )
        starting = (measured.start_s + work.read_tokens / READ_TOKENS_A_SECOND) * self._crowded(work, threads=1)
        sampling = work.samples * min(SAMPLES_S, SAMPLE_TOKENS * measured.next_token_s * self._deeper)
        return starting + forward + sampling + work.checkpoints * SAVE_S

    def peak_bytes(self, work: Workload, config: TrainingConfig) -> int:
        """Of the first process, which alone scores; on a CPU, whose memory they share, of all together."""
        measured, default, layers = self.costs.peak_bytes, TrainingConfig(), self.costs.measurement.layers
        ratio = self.shape.token_numbers(config, self.shape.layers) / self.shape.token_numbers(default, layers)
        in_batch = Fit(0, measured.token * ratio, measured.square * self._deeper).at(*work.largest)
        wanted = self._weight_bytes(config, self.shape.layers, config.quantization is Quantization.NF4)
        present = self._weight_bytes(default, layers, layers == self.shape.layers)  # some layers have no quantization
        stepping, scoring = measured.fixed + in_batch, self.costs.measurement.scoring_peak_bytes
        first, each_other = max(stepping, scoring) + wanted - present, stepping + wanted - present
        return round(first + (work.processes - 1) * each_other if self.is_cpu else first)

    def fits(self, work: Workload, config: TrainingConfig) -> bool:
        return self.peak_bytes(work, config) <= self.costs.measurement.free_bytes

    @property
    def _deeper(self) -> float:
        return self.shape.layers / self.costs.measurement.layers

    def _crowded(self, work: Workload, threads: int) -> float:
        """How much longer processes of so many threads each take than one alone: the cores are for all of them."""
        cores = self.costs.measurement.cores
        return max(1.0, work.processes * min(threads, cores) / cores) if self.is_cpu else 1.0

    def _exchange_seconds(self, work: Workload, config: TrainingConfig) -> float:
        if work.processes == 1 or not self.is_cpu:
            return 0.0
        return work.steps * 4 * self.shape.adapter_weights(config) / EXCHANGED_BYTES_A_SECOND

    def _weight_bytes(self, config: TrainingConfig, layers: int, quantized: bool) -> float:
        """Of so many blocks, frozen, and of the adapter with its gradient and AdamW's two moments."""
        share = layers / self.shape.layers
        frozen = dense = self.shape.linear_weights * share * (4 if self.is_cpu else 2)
        if quantized:
            kept = dense if dense <= CACHE_SHARE * self.costs.measurement.free_bytes else 0
            frozen = self.shape.linear_weights * share * NF4_BYTES + kept
        return frozen + 16 * self.shape.adapter_weights(config) * share
