"""transformers' Trainer with peft's LoRA over micro-batches that it is given: `python transformers_trainer.py FOLDER`.

A program of its own, for beside the platform's package `datasets` Trainer cannot be imported. FOLDER/cases.json has a list of:

    base              the base model's folder
    adapter           safetensors with the first weights of the adapter, under peft's names
    four_bits         whether the base model is quantized
    micro_batches     of each, its rows as {"ids", "labels"}, in the order in which they are trained on
    lora              what LoraConfig is told
    training          what TrainingArguments are told

It writes FOLDER/curves.json: of each case the loss and the norm of the gradient of each step, in full precision.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainerCallback, TrainingArguments

Row = dict[str, list[int]]


def padded(micro_batches: list[list[Row]]) -> dict[str, torch.Tensor]:
    """The rows of one micro-batch side by side, filled up to the longest of them."""
    (rows,) = micro_batches
    width = max(len(row["ids"]) for row in rows)

    def filled(values: list[list[int]], filling: int) -> torch.Tensor:
        return torch.tensor([each + [filling] * (width - len(each)) for each in values])

    return {
        "input_ids": filled([row["ids"] for row in rows], 0),
        "labels": filled([row["labels"] for row in rows], -100),
        "attention_mask": filled([[1] * len(row["ids"]) for row in rows], 0),
    }


class Curve(TrainerCallback):
    """What Trainer logs is rounded: its losses are noted where they arise."""

    def __init__(self) -> None:
        self.parts: list[float] = []
        self.points: list[dict[str, float]] = []

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "grad_norm" in logs:
            self.points.append({"loss": sum(self.parts), "grad_norm": logs["grad_norm"]})
            self.parts.clear()


class NotingTrainer(Trainer):
    def __init__(self, curve: Curve, **arguments: Any) -> None:
        super().__init__(**arguments, callbacks=[curve])
        self.curve = curve

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        part = super().training_step(*arguments, **keywords)
        self.curve.parts.append(part.item())  # its share of the step's loss
        return part


def curve(case: dict[str, Any], folder: Path) -> list[dict[str, float]]:
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = AutoModelForCausalLM.from_pretrained(
        case["base"],
        dtype=torch.float32,
        attn_implementation="eager",
        quantization_config=four_bits if case["four_bits"] else None,
        local_files_only=True,
    )
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **case["lora"]))
    loaded = set_peft_model_state_dict(model, load_file(case["adapter"]))
    assert not loaded.unexpected_keys
    noted = Curve()
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        per_device_train_batch_size=1,  # of micro-batches
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **case["training"],
    )
    trainer = NotingTrainer(
        noted, model=model, args=arguments, train_dataset=case["micro_batches"], data_collator=padded
    )
    trainer.train()
    return noted.points


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    cases = json.loads((folder / "cases.json").read_text())
    (folder / "curves.json").write_text(json.dumps([curve(case, folder) for case in cases]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
