"""The training loop of the small base model.

The budget is time, not steps: the learning rate falls to nothing exactly when the minutes are over, on any machine.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, Starcoder2ForCausalLM

from training.pretraining.config import BaseModelConfig


@dataclass(frozen=True)
class TokenizedCorpus:
    """Each document as token ids that end with END_OF_TEXT."""

    modules: list[Tensor]
    tests: list[Tensor]


@dataclass
class Progress:
    """How far a training run has come; kept in its checkpoint."""

    elapsed_s: float = 0.0
    step: int = 0
    tokens: int = 0
    epoch: int = 0
    loss_per_token: float = 0.0
    """Nats, smoothed over the last steps."""

    def advance(self, tokens: int, loss_per_token: float, *, elapsed_s: float) -> None:
        """Count one step."""
        self.step += 1
        self.tokens += tokens
        self.elapsed_s = elapsed_s
        weight = max(0.05, 1 / self.step)
        self.loss_per_token += weight * (loss_per_token - self.loss_per_token)


def fit(
    model: Starcoder2ForCausalLM,
    corpus: TokenizedCorpus,
    config: BaseModelConfig,
    *,
    state_file: Path,
    on_step: Callable[[Progress], None],
    on_checkpoint: Callable[[Progress], None],
    clock: Callable[[], float] = time.monotonic,
) -> Progress:
    """Train `model` in place for config.minutes, those before the checkpoint in `state_file` included.

    A checkpoint is written every config.checkpoint_every_s, and `on_checkpoint` called after it. A run that goes on from
    a checkpoint starts a new pass over the text, so it equals no uninterrupted run bit for bit.
    """
    optimizers = build_optimizers(model, config)
    progress = restore(state_file, model, optimizers) if state_file.exists() else Progress()
    loss_of_windows = build_loss(model, config)
    batches = iterate_batches(corpus, config, progress)
    started = last_checkpoint = clock()
    elapsed_before_s = progress.elapsed_s
    while progress.elapsed_s < config.minutes * 60:
        set_learning_rate(optimizers, learning_rate_factor(progress, config))
        loss_per_token = accumulate_gradients(loss_of_windows, batches, config)
        nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        now = clock()
        progress.advance(config.tokens_per_step, loss_per_token, elapsed_s=elapsed_before_s + now - started)
        on_step(progress)
        if now - last_checkpoint >= config.checkpoint_every_s:
            save(state_file, model, optimizers, progress)
            on_checkpoint(progress)
            last_checkpoint = now
    save(state_file, model, optimizers, progress)
    return progress


def accumulate_gradients(
    loss_of_windows: Callable[[Tensor], Tensor], batches: Iterator[Tensor], config: BaseModelConfig
) -> float:
    """Run the passes of one step and return its mean loss per token."""
    passes = config.tokens_per_step // config.tokens_per_pass
    total = 0.0
    for _ in range(passes):
        loss = loss_of_windows(next(batches)) / passes
        loss.backward()
        total += loss.item()
    return total


def build_optimizers(model: nn.Module, config: BaseModelConfig) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks and AdamW for everything else."""
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and ".layers." in name]
    embeddings = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and ".layers." not in name]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    muon = torch.optim.Muon(
        [{"params": matrices, "peak_lr": config.matrix_learning_rate}],
        lr=config.matrix_learning_rate,
        weight_decay=config.weight_decay,
    )
    adamw = torch.optim.AdamW(
        [
            {"params": embeddings, "weight_decay": config.weight_decay, "peak_lr": config.other_learning_rate},
            {"params": vectors, "weight_decay": 0.0, "peak_lr": config.other_learning_rate},
        ],
        lr=config.other_learning_rate,
        betas=(0.9, 0.95),
    )
    return [muon, adamw]


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set the rate of each group to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def build_loss(model: Starcoder2ForCausalLM, config: BaseModelConfig) -> Callable[[Tensor], Tensor]:
    """Return the function from windows, [n, tokens + 1] on any device, to their mean loss in nats per token."""
    model.config._attn_implementation = "causal"

    def loss_of_pass(inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=config.bf16):
            hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden)
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    compiled = torch.compile(loss_of_pass, dynamic=False) if config.compile else loss_of_pass

    def loss_of_windows(windows: Tensor) -> Tensor:
        windows = windows.to(model.device)
        return compiled(windows[:, :-1], windows[:, 1:])

    return loss_of_windows


def causal_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float | None = None, **_: object
) -> tuple[Tensor, None]:
    """Attend to what came before, without building a mask: a third faster for windows of 1,024 than "sdpa".

    transformers builds the mask whenever torch.compile looks on, and with one the kernel computes the upper triangle.
    """
    mixed = nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register("causal", causal_attention)


def learning_rate_factor(progress: Progress, config: BaseModelConfig) -> float:
    """Return the share of the peak learning rate: warm-up by steps, a plateau, then a line down to zero at the end."""
    share = progress.elapsed_s / (config.minutes * 60)
    warm = min(1.0, (progress.step + 1) / config.warmup_steps)
    return warm * max(0.0, min(1.0, (1 - share) / (1 - config.decay_from)))


def iterate_batches(corpus: TokenizedCorpus, config: BaseModelConfig, progress: Progress) -> Iterator[Tensor]:
    """Yield [windows, tokens + 1] for ever, counting the passes over the text in progress.epoch."""

    def window_tokens() -> int:
        is_long = progress.elapsed_s >= config.long_context_from * config.minutes * 60
        return config.context_tokens if is_long else config.short_context_tokens

    while True:
        length = window_tokens()
        windows = cut_windows(corpus, config, progress.epoch, length)
        count = config.tokens_per_pass // length
        for start in range(0, len(windows) - count + 1, count):
            yield windows[start : start + count]
            if window_tokens() != length:
                break
        progress.epoch += 1


def cut_windows(corpus: TokenizedCorpus, config: BaseModelConfig, epoch: int, length: int) -> Tensor:
    """Return [n, length + 1] token ids: the documents of one epoch in random order, end to end, cut, and shuffled.

    An epoch has every module and a share of the tests, which takes turns.
    """
    generator = torch.Generator().manual_seed(config.seed * 1_000 + epoch)
    ratio = config.module_passes_per_test_pass
    documents = corpus.modules + corpus.tests[epoch % ratio :: ratio]
    order = torch.randperm(len(documents), generator=generator).tolist()
    stream = torch.cat([documents[index] for index in order])
    windows = stream.unfold(0, length + 1, length)
    return windows[torch.randperm(len(windows), generator=generator)]


def save(state_file: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], progress: Progress) -> None:
    """Write what `restore` needs, whole or not at all."""
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": vars(progress),
    }
    beside = state_file.with_suffix(".part")
    torch.save(state, beside)
    beside.replace(state_file)


def restore(state_file: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> Progress:
    """Continue from `state_file`; the pass over the text that it interrupted is not repeated."""
    state = torch.load(state_file, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    progress = Progress(**state["progress"])
    progress.epoch += 1
    return progress
