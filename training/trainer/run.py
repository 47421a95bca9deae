"""A training run from its orders to its result: set up, fit, measure, leave the adapter."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from pathlib import Path
from typing import Any

import torch

from common.child import Attempt, ChildError
from training.trainer import best, checkpoint
from training.trainer.adapter import model_card, write_adapter
from training.trainer.artifact import ADAPTER_WEIGHTS, adapter_digest
from training.trainer.attention import use_document_attention
from training.trainer.batches import Sampler
from training.trainer.chat import ChatFormat, ChatTemplateError
from training.trainer.encoding import Examples
from training.trainer.evaluation import mean_loss
from training.trainer.fim import FillInTheMiddle, FimError
from training.trainer.fit import fit, follow
from training.trainer.lora import add_lora, base_only
from training.trainer.memory import free_bytes, is_out_of_memory, peak_bytes
from training.trainer.orders import Orders
from training.trainer.production import measure_production
from training.trainer.quantization import BaseModelError, load_base
from training.trainer.rows import HELD_OUT_ROWS, evenly_spaced, read_rows
from training.trainer.state import Progress, load_state
from training.trainer.step import Run
from training.trainer.team import Team


def train(attempt: Attempt, orders: Orders, team: Team) -> None:
    """Carry out the orders: leaves checkpoints/, adapter/, and a result (its `seconds` are this attempt's).

    Raises ChildError for what the user can understand, and Interrupted on SIGTERM.
    """
    try:
        _train(attempt, orders, team)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size_bytes = sum(file.stat().st_size for file in orders.base_path.glob("*.safetensors"))
        raise ChildError(
            "OUT_OF_MEMORY",
            f"The base model and its adapter do not fit into memory: the model's files have {size_bytes:,} bytes, and "
            f"{free_bytes(choose_device(orders.device)):,} were left when no more could be had. "
            "Choose quantization NF4, a lower lora_rank, or a smaller base model.",
        ) from error


def _train(attempt: Attempt, orders: Orders, team: Team) -> None:
    started = time.monotonic()
    with attempt.interruptible():
        run = set_up(attempt, orders, team)
    if not team.is_first:
        follow(run)
        attempt.succeed()
        return
    fit(run)
    best.put_back(run)
    losses = score(run)
    results = {
        "steps": run.progress.step,
        "total_steps": run.sampler.total_steps,
        "processes": team.count,
        "skipped_steps": run.progress.skipped_steps,
        "tokens": run.progress.tokens,
        "tokens_per_second": run.progress.tokens / run.progress.step_seconds,
        "first_loss": run.progress.first_loss,
        "last_loss": run.progress.last_loss,
        "eval_loss": run.progress.eval_loss,
        "best_step": run.progress.best_step or None,
        "best_eval_loss": run.progress.best_eval_loss,
        "stopped_early": run.progress.stopped_of is not None,
        "chat_template_sha256": ChatFormat(run.tokenizer).template_sha256,
        **losses,
        "peak_memory_bytes": peak_bytes(run.device),
        "seconds": time.monotonic() - started,
    }
    environment = describe_environment(run.device)
    data = {
        "train_tokens": len(run.examples["train"].ids),
        **{f"{name}_rows": len(rows) for name, rows in run.examples.items()},
    }
    folder = attempt.folder / "adapter"
    write_adapter(folder, run.layers, orders, model_card(orders, data, results, environment))
    adapter = {"digest": adapter_digest(folder), "size_bytes": (folder / ADAPTER_WEIGHTS).stat().st_size}
    attempt.succeed(**results, adapter=adapter, environment=environment)


def set_up(attempt: Attempt, orders: Orders, team: Team) -> Run:
    """Read the data, load the base model, add the adapter, and go to where the checkpoint left off."""
    from transformers import AutoTokenizer

    if orders.threads is not None:
        torch.set_num_threads(orders.threads)
    device = choose_device(orders.device, team)
    attempt.events.log(f"Loading base model {orders.base_name}")
    try:
        model = load_base(orders.base_path, orders.config.quantization, device)
    except BaseModelError as error:
        raise ChildError("BASE_MODEL_UNAVAILABLE", str(error)) from error
    use_document_attention(model)
    layers = add_lora(model, orders.config)
    max_tokens = min(orders.config.max_sequence_tokens, model.config.max_position_embeddings)
    tokenizer = AutoTokenizer.from_pretrained(orders.base_path, local_files_only=True, trust_remote_code=False)
    examples = read_splits(attempt, orders, tokenizer, max_tokens)
    if len(examples["train"]) == 0:
        raise ChildError("NO_TRAINING_ROWS", "No row of the training split has anything to learn from.")
    if orders.config.early_stopping_patience is not None and len(examples["validation"]) == 0:
        attempt.events.log(
            "There are no validation rows: the run cannot stop early, and leaves its last step's adapter",
            level="WARNING",
        )
    optimizer = torch.optim.AdamW(
        [parameter for layer in layers.values() for parameter in (layer.lora_A, layer.lora_B)],
        weight_decay=orders.config.weight_decay,
    )
    run = Run(
        attempt=attempt,
        orders=orders,
        model=model,
        tokenizer=tokenizer,
        layers=layers,
        optimizer=optimizer,
        sampler=Sampler(examples["train"].lengths, orders.config, max_tokens),
        examples=examples,
        progress=Progress(),
        device=device,
        team=team,
    )
    if orders.resume_from is not None:
        resume(run, orders.resume_from)
    team.meet(device)
    attempt.events.log(
        f"Training for {run.sampler.total_steps} steps on {describe_device(device)}"
        + (f", in {team.count} processes" if team.count > 1 else "")
    )
    return run


def resume(run: Run, wanted: Path) -> None:
    """Go on from a checkpoint, or, where its files are damaged, from the newest whole one before it.

    Raises ChildError CHECKPOINT_DAMAGED where none is whole.
    """
    found = checkpoint.whole_or_older(wanted)
    if found is None:
        raise ChildError("CHECKPOINT_DAMAGED", f"{wanted.name} is damaged, and there is no older one. Start anew.")
    if found.folder != wanted:
        run.attempt.events.log(f"{wanted.name} is damaged; using {found.folder.name}", level="WARNING")
    run.progress = load_state(found.folder, run.layers, run.optimizer, run.orders)
    best.restore(run, found.folder)
    run.attempt.events.log(f"Going on from step {run.progress.step}")


def read_splits(attempt: Attempt, orders: Orders, tokenizer: Any, max_tokens: int) -> dict[str, Examples]:
    """Encode the rows that this process works on: of those that share a run only the first looks at held-out ones.

    Raises ChildError CHAT_TEMPLATE and FIM_UNSUPPORTED where the base model's tokenizer cannot be used for them.
    """
    wanted = ("train", "validation", "test") if orders.process == 0 else ("train",)
    examples = {name: Examples() for name in ("train", "validation", "test")}
    try:
        return examples | {name: read_split(attempt, orders, name, tokenizer, max_tokens) for name in wanted}
    except ChatTemplateError as error:
        raise ChildError("CHAT_TEMPLATE", str(error)) from error
    except FimError as error:
        raise ChildError(
            "FIM_UNSUPPORTED",
            f"{orders.base_name} cannot learn fill-in-the-middle. {error} Set fimRate to 0, or choose another base model.",
        ) from error


def read_split(attempt: Attempt, orders: Orders, name: str, tokenizer: Any, max_tokens: int) -> Examples:
    """Encode the rows of a split: all of the training split, up to HELD_OUT_ROWS of another."""
    at_most = None if name == "train" else HELD_OUT_ROWS
    config = orders.config
    fim = FillInTheMiddle(tokenizer, config.fim_rate, config.seed) if name == "train" and config.fim_rate else None
    examples = Examples.from_rows(read_rows(orders.splits[name], at_most), tokenizer, max_tokens, fim)
    attempt.events.log(
        f"{name}: {len(examples):,} rows, {len(examples.ids):,} tokens, {examples.supervised_tokens:,} of them counted "
        f"by the loss; {examples.truncated:,} rows shortened to {max_tokens:,} tokens, {examples.dropped:,} left out"
        + (f"; {fim.rearranged_rows:,} with their middle at their end" if fim else "")
    )
    if examples.first_refusal is not None:
        attempt.events.log(
            f"{name}: the base model's chat template refuses some chats, which are among those left out; of the first it "
            f"says: {examples.first_refusal[:300]}",
            level="WARNING",
        )
    return examples


def score(run: Run) -> dict[str, Any]:
    """Measure the base model, the adapter, and the one in production on the same test rows; null for all where there are none."""
    test = run.examples["test"]
    if len(test) == 0:
        return {"test_rows": 0, "test_loss": None, "base_test_loss": None}
    run.attempt.events.log(f"Scoring the adapter and the base model on {len(test):,} test rows")
    rows = evenly_spaced(len(test), len(test))
    test_loss = mean_loss(run, test, rows)
    with base_only(run.layers):
        base_test_loss = mean_loss(run, test, rows)
    others = measure_production(run, rows)
    return {"test_rows": len(test), "test_loss": test_loss, "base_test_loss": base_test_loss, **others}


def choose_device(wanted: str, team: Team | None = None) -> torch.device:
    """Return the device for "auto", "cpu", or "cuda": of several processes each gets an accelerator of its own.

    Raises ChildError NO_ACCELERATOR where there is none for it.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ChildError("NO_ACCELERATOR", "This machine has no CUDA accelerator that torch can use.")
    if not available or wanted == "cpu":
        return torch.device("cpu")
    if team is None or team.count == 1:
        return torch.device("cuda")
    if team.count > torch.cuda.device_count():
        raise ChildError(
            "NO_ACCELERATOR",
            f"A run of {team.count} processes needs as many CUDA accelerators, and there are {torch.cuda.device_count()}.",
        )
    torch.cuda.set_device(team.index)
    return torch.device("cuda", team.index)


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"the CPU ({torch.get_num_threads()} threads)"


def describe_environment(device: torch.device) -> dict[str, str]:
    """What a repetition would need to be the same: versions, platform, and device."""
    packages = ("torch", "transformers", "accelerate", "bitsandbytes", "safetensors", "tokenizers", "numpy", "pyarrow")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "device": describe_device(device),
    }
