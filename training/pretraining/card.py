"""What ships beside the weights: measurement.json for programs and README.md, the model card, for people."""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.pretraining.config import BaseModelConfig
from training.pretraining.corpus import Corpus, Document, distinctive_lines
from training.pretraining.fit import Progress
from training.pretraining.measure import Measurement

# A module with more of its lines in other files than this (`wave` and `aifc` came from one hand) is partly known.
MAX_SHARED_LINES_OF_FRESH = 0.25
MEASUREMENT_FILE = "measurement.json"
CARD_FILE = "README.md"


@dataclass(frozen=True)
class BuildRecord:
    """How a model came to be, as far as its weights do not tell."""

    config: BaseModelConfig
    progress: Progress
    corpus: Corpus
    parameters: int
    machine: str
    """Processor or accelerator, and threads."""
    command: str
    """The command that builds with the same choices."""


def write_measurement(record: BuildRecord, measurement: Measurement, output: Path) -> dict[str, Any]:
    """Write measurement.json, from which `held_out_paths` can tell later what the model must not have seen."""
    shared = shared_lines(record.corpus)
    fresh = [document.path for document in record.corpus.held_out if shared[document.path] <= MAX_SHARED_LINES_OF_FRESH]
    held_out = [
        {
            "path": document.path,
            "bytes": document.size_bytes,
            "sha256": digest(document),
            "bits_per_byte": round(measurement.bits_by_path[document.path] / document.size_bytes, 4),
            "shared_lines": round(shared[document.path], 3),
        }
        for document in record.corpus.held_out
    ]
    content = {
        "bits_per_byte": round(measurement.bits_per_byte, 4),
        "bits_per_byte_of_fresh": round(measurement.of(fresh).bits_per_byte, 4) if fresh else None,
        "fresh": fresh,
        "held_out_bytes": sum(measurement.bytes_by_path.values()),
        "held_out": held_out,
        "python": platform.python_version(),
        "parameters": record.parameters,
        "model_bytes": (output / "model.safetensors").stat().st_size,
        "training": {
            "command": record.command,
            "machine": record.machine,
            "minutes": round(record.progress.elapsed_s / 60, 1),
            "steps": record.progress.step,
            "tokens_seen": record.progress.tokens,
            "module_files": len(record.corpus.modules),
            "test_files": len(record.corpus.tests),
            "bytes": sum(document.size_bytes for document in record.corpus.training),
        },
        "choices": asdict(record.config),
    }
    (output / MEASUREMENT_FILE).write_text(json.dumps(content, indent=2) + "\n")
    return content


def shared_lines(corpus: Corpus) -> dict[str, float]:
    """Return path -> share of a held-out module's distinctive lines that some training file has, too."""
    known = frozenset().union(*map(distinctive_lines, corpus.training))
    lines_by_path = {document.path: distinctive_lines(document) for document in corpus.held_out}
    return {path: len(lines & known) / max(1, len(lines)) for path, lines in lines_by_path.items()}


def digest(document: Document) -> str:
    return hashlib.sha256(document.text.encode()).hexdigest()


def held_out_paths(model_folder: Path) -> dict[str, str]:
    """Return path -> sha256 of the modules that the model in `model_folder` was not trained on."""
    content = json.loads((model_folder / MEASUREMENT_FILE).read_text())
    return {module["path"]: module["sha256"] for module in content["held_out"]}


def write_card(content: dict[str, Any], output: Path) -> None:
    """Write the model card from the content of measurement.json."""
    training, choices = content["training"], content["choices"]
    rows = "\n".join(
        f"| `{module['path']}` | {module['bytes']:,} | {module['bits_per_byte']:.3f} | {module['shared_lines']:.0%} |"
        for module in content["held_out"]
    )
    (output / CARD_FILE).write_text(
        CARD.format(
            **{key: content[key] for key in ("bits_per_byte", "held_out_bytes", "python", "parameters", "model_bytes")},
            **{key: value for key, value in training.items() if key != "bytes"},
            **{key: value for key, value in choices.items() if key != "minutes"},
            training_bytes=training["bytes"],
            held_out_count=len(content["held_out"]),
            fresh_count=len(content["fresh"]),
            fresh_bits_per_byte=content["bits_per_byte_of_fresh"],
            fresh_share=MAX_SHARED_LINES_OF_FRESH,
            half_window=choices["context_tokens"] // 2,
            rows=rows,
        )
    )


CARD = """\
---
language: code
license: psf-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [starcoder2, python]
---

# python-small

The platform's own base model: {parameters:,} parameters that continue Python source. It exists so that fine-tuning,
evaluation, and serving are real on a machine without an accelerator and without a download. It is no assistant, and
for real work a real code model (bigcode/starcoder2-3b) takes its place.

| | |
|---|---|
| architecture | Starcoder2: {layers} layers, hidden {hidden_size}, MLP {intermediate_size}, {heads} query heads and \
{kv_heads} key-value head of 64, tied embeddings |
| context | {context_tokens:,} tokens |
| tokenizer | byte-level BPE, {vocabulary_size:,} tokens; any text round-trips; `<|endoftext|>` begins and ends documents |
| weights | float32, {model_bytes:,} bytes of safetensors |
| held-out bits per byte | **{bits_per_byte:.3f}** |

## Data

The standard library of CPython {python}, read from the interpreter that built the model: {module_files:,} modules, and
{test_files:,} files of its tests, {training_bytes:,} bytes in all. A module is read {module_passes_per_test_pass} times
for each time a test is. Left out: the {held_out_count} modules below, their tests, files that share most of their lines
with one of them, generated tables, exact duplicates, and what is not UTF-8.
The text is under the PSF License Version 2 (https://docs.python.org/3/license.html), and so are these weights.

## Training

{minutes} minutes on {machine}: {steps:,} steps, {tokens_seen:,} tokens, seed {seed}.
Windows of {short_context_tokens} tokens, after {long_context_from:.0%} of the time of {context_tokens:,}; Muon for the
matrices of the blocks, AdamW for the rest. The schedule is laid over wall-clock time, so another machine takes another
number of steps and does not give the same weights. Every choice is in `measurement.json`.

## Measurement

Total bits over total UTF-8 bytes of the {held_out_count} modules ({held_out_bytes:,} bytes), which the seed chose among
ordinary modules of 4 to 60 kB. Each file starts after `<|endoftext|>` and includes the one that ends it; the window of
{context_tokens:,} tokens moves on by {half_window}, and each token is counted once.

The last column is the share of a module's lines, of 20 characters or more, that a training file has, too. Over the
{fresh_count} modules that share at most {fresh_share:.0%} it is **{fresh_bits_per_byte:.3f}** bits per byte. Short files
and other people's code are harder: the model has less to go by, or other habits than those of the standard library.

| module | bytes | bits per byte | shared lines |
|---|---:|---:|---:|
{rows}

## Limits

It writes lines that look like Python and often parse; it does not know what they do. Names, numbers, and prose in
docstrings are invented. It has seen no language but Python and the English of its comments. It repeats passages of the
standard library, names of contributors included. Do not run what it writes.

## Rebuild

    python manage.py build_base_model
    python manage.py build_base_model --measure-only

or, without Django, `python -m training.pretraining` with the same options. The shipped weights have the choices of
`{command}`.
"""
