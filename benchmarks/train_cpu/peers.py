"""A peer, in the environment that it is installed in: `python peers.py NAME FOLDER`, then a call a line.

It stands alone, as nothing of the platform is installed beside a peer. Each trains the model in FOLDER/model on FOLDER/train.jsonl as its
documentation shows, with the numbers of FOLDER/recipe.json: LoRA on all linear layers, in float32, with the loss on completions.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

STDOUT, STDERR = 1, 2
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"]
IGNORED = -100


class Gate:
    """Lets a training go on for as long as it is told to, and stops it between two steps.

    A training runs in a thread of its own, from one call to another: so none of them pays for its start.
    """

    def __init__(self, train: Callable[[Gate], None], padding: int) -> None:
        self.model: Any = None
        self.tokens = self.steps = 0  # tokens that are no padding
        self._padding = padding
        self._until = 0
        self._go, self._stopped = threading.Event(), threading.Event()
        self._train = train
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._await_stop()

    def callback(self) -> Any:
        """What Trainer calls."""
        from transformers import TrainerCallback

        gate = self

        class Counting(TrainerCallback):
            def on_train_begin(self, *_: Any, model: Any, **__: Any) -> None:
                gate.model = model
                model.register_forward_pre_hook(gate.count, with_kwargs=True)
                gate.pause()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                gate.steps += 1
                if gate.tokens >= gate._until:
                    gate.pause()

        return Counting()

    def count(self, module: Any, _: Any, inputs: dict[str, Any]) -> None:
        if module.training:
            self.tokens += int(inputs["input_ids"].ne(self._padding).sum())

    def pause(self) -> None:
        self._stopped.set()
        self._go.wait()
        self._go.clear()

    def go_on(self, tokens: int) -> None:
        self._until = self.tokens + tokens
        self._stopped.clear()
        self._go.set()
        self._await_stop()

    def _await_stop(self) -> None:
        while not self._stopped.wait(1.0):
            if not self._thread.is_alive():
                raise RuntimeError("The training has ended.")

    def _run(self) -> None:
        self._train(self)


class Peer:
    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder
        self._recipe: dict[str, Any] = json.loads((folder / "recipe.json").read_text())
        train = PEERS[name]
        self._gate = Gate(lambda gate: train(gate, folder, self._recipe), self._recipe["padding"])

    def train(self, tokens: int) -> dict[str, float]:
        """Make steps until they have had so many tokens; what that took."""
        gate = self._gate
        before, steps = gate.tokens, gate.steps
        begun, wall = processor_s(), time.perf_counter()
        gate.go_on(tokens)
        return {
            "tokens": gate.tokens - before,
            "steps": gate.steps - steps,
            "seconds": processor_s() - begun,
            "wall_s": time.perf_counter() - wall,
        }

    def held_out(self) -> dict[str, float]:
        """The mean loss of the completions' tokens in FOLDER/held_out.jsonl, row by row."""
        import torch

        total, counted, tokens = 0.0, 0, 0
        model = self._gate.model.eval()
        for row in encoded(self._folder, "held_out", self._recipe["max_tokens"]):
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            total += torch.nn.functional.cross_entropy(logits[:-1].float(), labels[1:], reduction="sum").item()
            counted += int(labels.ne(IGNORED).sum())
            tokens += ids.numel()
        model.train()
        return {"loss": total / counted, "tokens": tokens, "counted": counted}


def transformers(gate: Gate, folder: Path, recipe: dict[str, Any], **settings: Any) -> None:
    """Trainer with peft, rows tokenized beforehand, and the collator that pads labels."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(folder / "model", local_files_only=True)
    Trainer(
        model=get_peft_model(model, lora(recipe)),
        args=TrainingArguments(**arguments(folder, recipe), **settings),
        train_dataset=encoded(folder, "train", recipe["max_tokens"]),
        data_collator=DataCollatorForSeq2Seq(tokenizer_of(folder)),
        callbacks=[gate.callback()],
    ).train()


def trl(gate: Gate, folder: Path, recipe: dict[str, Any], **settings: Any) -> None:
    """SFTTrainer over prompts and completions."""
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", local_files_only=True),
        args=SFTConfig(**arguments(folder, recipe) | {"max_length": recipe["max_tokens"]} | settings),
        train_dataset=import_module("datasets").load_dataset(
            "json", data_files=str(folder / "train.jsonl"), split="train"
        ),
        processing_class=tokenizer_of(folder),
        peft_config=lora(recipe),
        callbacks=[gate.callback()],
    ).train()


def llamafactory(gate: Gate, folder: Path, recipe: dict[str, Any], **settings: Any) -> None:
    """Its own entry point, with a recipe as in its examples."""
    from llamafactory.train.tuner import run_exp

    columns = {"prompt": "prompt", "response": "completion"}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "train.jsonl", "columns": columns}}))
    run_exp(
        {
            **arguments(folder, recipe),
            "model_name_or_path": str(folder / "model"),
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_target": "all",
            "lora_rank": recipe["lora_rank"],
            "lora_alpha": recipe["lora_alpha"],
            "lora_dropout": 0.0,
            "dataset": "rows",
            "dataset_dir": str(folder),
            "template": "empty",
            "cutoff_len": recipe["max_tokens"],
            "disable_gradient_checkpointing": True,
            **settings,
        },
        callbacks=[gate.callback()],
    )


PEERS: dict[str, Callable[..., None]] = {
    "transformers": transformers,
    "transformers_grouped": lambda *a: transformers(*a, train_sampling_strategy="group_by_length"),
    "trl": trl,
    "trl_padding_free": lambda *a: trl(*a, padding_free=True, max_length=None, gradient_checkpointing=False),
    "llamafactory": llamafactory,
}


def lora(recipe: dict[str, Any]) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe["lora_rank"],
        lora_alpha=recipe["lora_alpha"],
        lora_dropout=0.0,
        target_modules=LAYERS,
    )


def arguments(folder: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """What all of them call alike."""
    return {
        "output_dir": str(folder / f"left-{os.getpid()}"),
        "per_device_train_batch_size": recipe["step_rows"],
        "learning_rate": recipe["learning_rate"],
        "lr_scheduler_type": "constant",
        "num_train_epochs": 100,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "seed": recipe["seed"],
    }


def encoded(folder: Path, name: str, max_tokens: int) -> list[dict[str, list[int]]]:
    tokenizer = tokenizer_of(folder)
    rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    made = []
    for row in rows:
        prompt, completion = (tokenizer(row[part])["input_ids"] for part in ("prompt", "completion"))
        ids = [*prompt, *completion, tokenizer.eos_token_id][:max_tokens]
        labels = [IGNORED] * len(prompt) + ids[len(prompt) :]
        made.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)})
    return made


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "model", local_files_only=True)


def processor_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def serve(make: Callable[[], Any]) -> None:
    """A call of the object's methods for each line, and its result as a line."""
    results = os.fdopen(os.dup(STDOUT), "w")
    os.dup2(STDERR, STDOUT)  # a stray print is no result
    served = make()
    for line in sys.stdin:
        method, keywords = json.loads(line)
        results.write(json.dumps(getattr(served, method)(**keywords)) + "\n")
        results.flush()
    results.flush()
    os._exit(0)  # a training that is not at its end is left where it stands


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    serve(lambda: Peer(sys.argv[1], Path(sys.argv[2])))
