"""What the model makes of a few prompts of the validation split, now and then, for people to read.

Nothing else depends on it: no random number is drawn, no weight changes, and what it costs is bounded by tokens, by time,
and by how often it is done. So a run that goes on shows other samples only where the time was up.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from training.trainer.attention import one_document
from training.trainer.memory import is_out_of_memory, let_go
from training.trainer.step import Run

SAMPLES = 3
PROMPT_TOKENS = 256
"""Of a longer prompt the model sees the end."""
NEW_TOKENS = 48
SECONDS = 5.0
"""For all samples of a validation; the token that is being computed then is the last."""
TIMES = 20
"""Of more validations than these in a run, evenly spread ones have samples."""
SHOWN_CHARACTERS = 240
"""Of a prompt, its end."""


@dataclass(frozen=True)
class Sample:
    """A prompt's end, and what the model says next, as text that PostgreSQL can hold."""

    prompt: str
    continuation: str


def samples(run: Run, rows: list[int]) -> list[Sample]:
    """Continue the prompts of these validation rows with the likeliest tokens, or return none where it is not time.

    Raises Interrupted on SIGTERM. Without the memory for it there are none, and a line says so.
    """
    if not _is_time(run):
        return []
    until = time.monotonic() + SECONDS
    run.model.eval()
    made = []
    try:
        with run.attempt.interruptible(), torch.no_grad(), one_document(run.model):
            for row in rows:
                prompt = _prompt(run, row)
                made.append(Sample(_text(run, prompt)[-SHOWN_CHARACTERS:], _text(run, _continued(run, prompt, until))))
                if time.monotonic() > until:
                    break
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        run.attempt.events.log(f"Memory did not suffice for samples after step {run.progress.step:,}", level="WARNING")
        let_go()
    return made


def _is_time(run: Run) -> bool:
    total = run.sampler.total_steps
    every = run.orders.config.eval_every_steps or math.ceil(total / 4)
    stride = math.ceil(total / every / TIMES)
    return run.progress.step >= total or run.progress.step // every % stride == 0


def _prompt(run: Run, row: int) -> list[int]:
    """The tokens before the first that the loss counts; of plain text, which it counts from the start, the first half."""
    ids, supervised = run.examples["validation"].row(row)
    first = int(supervised.argmax())
    at_most = max(1, min(PROMPT_TOKENS, run.model.config.max_position_embeddings - NEW_TOKENS))
    prompt: list[int] = ids[: first if first > 1 else max(1, len(ids) // 2)].tolist()
    return prompt[-at_most:]


def _continued(run: Run, prompt: list[int], until: float) -> list[int]:
    from transformers import DynamicCache

    cache, unread, new = DynamicCache(config=run.model.config), prompt, list[int]()
    while len(new) < NEW_TOKENS and time.monotonic() <= until:
        inputs = torch.tensor([unread], device=run.device)
        output = run.model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token = int(output.logits[0, -1].argmax())
        if token == run.tokenizer.eos_token_id:
            break
        new.append(token)
        unread = [token]
    return new


def _text(run: Run, tokens: list[int]) -> str:
    text: str = run.tokenizer.decode(tokens, skip_special_tokens=True)
    return text.replace("\x00", "\ufffd")
