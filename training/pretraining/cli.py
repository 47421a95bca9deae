"""The options of a base-model build and what is shown meanwhile, for manage.py and for `python -m` alike."""

import platform
import shutil
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from training.pretraining import fit
from training.pretraining.build import BuildRequest, build, measure_again
from training.pretraining.config import BaseModelConfig
from training.pretraining.measure import Measurement

SHIPPED_MODEL = Path(__file__).resolve().parents[1] / "base_models" / "python-small"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options, on an argparse parser or on Django's."""
    defaults = BaseModelConfig()
    parser.add_argument("--output", type=Path, default=SHIPPED_MODEL, help="folder of the model (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="training time (default: %(default)s)")
    parser.add_argument(
        "--seed",
        type=int,
        default=defaults.seed,
        help="decides weights, order, held-out modules (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    parser.add_argument(
        "--measure-only", action="store_true", help="train nothing; measure the model in the output folder again"
    )


def run(options: dict[str, Any], console: Console) -> Measurement:
    """Do what the options say and print the result."""
    torch.set_num_threads(options["threads"])
    device = options["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if options["measure_only"]:
        with console.status("Measuring the held-out modules"):
            measurement = measure_again(options["output"], device)
    else:
        config = suit(BaseModelConfig(minutes=options["minutes"], seed=options["seed"]), device)
        measurement = build_with_progress(config, describe(options, device), console)
    console.print(as_table(measurement))
    return measurement


def suit(config: BaseModelConfig, device: str) -> BaseModelConfig:
    """Adapt the choices that only change the speed to this machine."""
    if device == "cuda":
        return replace(config, tokens_per_pass=config.tokens_per_step)
    # Without the instructions bfloat16 is emulated; without a compiler torch.compile raises at the first step.
    has_compiler = any(map(shutil.which, ("g++", "clang++", "c++")))
    return replace(config, bf16=torch.cpu._is_avx512_bf16_supported(), compile=config.compile and has_compiler)


def describe(options: dict[str, Any], device: str) -> BuildRequest:
    threads = options["threads"]
    noun = "thread" if threads == 1 else "threads"
    machine = f"{threads} {noun} of one {platform.machine()} processor"
    return BuildRequest(
        output=options["output"],
        device=device,
        resume=options["resume"],
        machine=torch.cuda.get_device_name() if device == "cuda" else machine,
        command=(
            f"python manage.py build_base_model --minutes {options['minutes']:g} --seed {options['seed']} "
            f"--threads {threads} --device {device}"
        ),
    )


def build_with_progress(config: BaseModelConfig, request: BuildRequest, console: Console) -> Measurement:
    """Build behind a bar that fills with time, as the training does."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[state]}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("Reading the standard library", total=config.minutes * 60, state="")
        return build(config, request, on_step=lambda progress: show(bar, task, progress))


def show(bar: Progress, task: TaskID, progress: fit.Progress) -> None:
    rate = progress.tokens / progress.elapsed_s
    state = f"step {progress.step:,}, {rate:,.0f} tokens/s, loss {progress.loss_per_token:.3f} per token"
    bar.update(task, description="Training", completed=progress.elapsed_s, state=state)


def as_table(measurement: Measurement) -> Table:
    """Lay out bits per byte, module by module."""
    table = Table("held-out module", "bytes", "bits per byte")
    for path, size_bytes in measurement.bytes_by_path.items():
        table.add_row(path, f"{size_bytes:,}", f"{measurement.bits_by_path[path] / size_bytes:.3f}")
    table.add_section()
    table.add_row("all", f"{sum(measurement.bytes_by_path.values()):,}", f"{measurement.bits_per_byte:.4f}")
    return table
