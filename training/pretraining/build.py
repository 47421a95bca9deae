"""The whole build: corpus, tokenizer, training, measurement, model card."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast, Starcoder2ForCausalLM

from training.pretraining.card import BuildRecord, digest, held_out_paths, write_card, write_measurement
from training.pretraining.config import BaseModelConfig
from training.pretraining.corpus import Corpus, Document, read_corpus, read_document, standard_library
from training.pretraining.fit import Progress, TokenizedCorpus, fit
from training.pretraining.measure import Measurement, measure
from training.pretraining.tokenizer import for_transformers, train_tokenizer


class StaleMeasurementError(ValueError):
    """The held-out modules are not those of the interpreter that built the model."""


@dataclass(frozen=True)
class BuildRequest:
    """Where and on what a base model is built."""

    output: Path
    """Folder of the finished model; each checkpoint on the way is a loadable model, too."""
    device: str
    """"cpu" or "cuda"."""
    resume: bool
    """Whether to go on from the checkpoint in `output`, if there is one."""
    machine: str
    """Said in the model card."""
    command: str
    """Said in the model card."""

    @property
    def state_file(self) -> Path:
        return self.output / "state.pt"


def build(config: BaseModelConfig, request: BuildRequest, on_step: Callable[[Progress], None]) -> Measurement:
    """Train the base model, measure it, and leave it in request.output with its card."""
    request.output.mkdir(parents=True, exist_ok=True)
    if not request.resume:
        request.state_file.unlink(missing_ok=True)
    torch.manual_seed(config.seed)
    corpus = read_corpus(config.seed)
    tokenizer = prepare_tokenizer(corpus, config, request)
    model = Starcoder2ForCausalLM(config.architecture())
    nn.Module.to(model, request.device)  # transformers wraps .to() in a way that hides its types
    progress = fit(
        model,
        TokenizedCorpus(encode(tokenizer, corpus.modules), encode(tokenizer, corpus.tests)),
        config,
        state_file=request.state_file,
        on_step=on_step,
        on_checkpoint=lambda progress: export(model, request.output),
    )
    export(model, request.output)
    record = BuildRecord(config, progress, corpus, model.num_parameters(), request.machine, request.command)
    measurement = finish(record, request)
    request.state_file.unlink()
    return measurement


def prepare_tokenizer(corpus: Corpus, config: BaseModelConfig, request: BuildRequest) -> PreTrainedTokenizerFast:
    """Train the tokenizer, or on a resume keep the one that the checkpoint was trained with."""
    if not request.state_file.exists():
        trained = train_tokenizer((document.text for document in corpus.training), config.vocabulary_size)
        for_transformers(trained, config.context_tokens).save_pretrained(request.output)
    return PreTrainedTokenizerFast.from_pretrained(request.output)


def encode(tokenizer: PreTrainedTokenizerFast, documents: list[Document]) -> list[torch.Tensor]:
    """Return the token ids of each document, END_OF_TEXT after it."""
    encodings = tokenizer.backend_tokenizer.encode_batch([document.text for document in documents])
    return [torch.tensor([*encoding.ids, tokenizer.eos_token_id]) for encoding in encodings]


def export(model: Starcoder2ForCausalLM, output: Path) -> None:
    """Write config.json, generation_config.json, and model.safetensors."""
    model.generation_config.pad_token_id = model.config.eos_token_id
    model.save_pretrained(output)


def finish(record: BuildRecord, request: BuildRequest) -> Measurement:
    """Measure what was written, as whoever loads it will see it, and write measurement.json and the card."""
    model, tokenizer = load(request.output, request.device)
    measurement = measure(model, tokenizer, record.corpus.held_out)
    write_card(write_measurement(record, measurement, request.output), request.output)
    return measurement


def load(folder: Path, device: str) -> tuple[Starcoder2ForCausalLM, PreTrainedTokenizerFast]:
    """Load a built model in float32."""
    model = Starcoder2ForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    nn.Module.to(model, device)
    return model.eval(), PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def measure_again(folder: Path, device: str) -> Measurement:
    """Measure the model in `folder` on the modules that its measurement.json names, and write nothing.

    Raises StaleMeasurementError where the running interpreter has another text for one of them.
    """
    expected = held_out_paths(folder)
    documents = [document for path in expected if (document := read_document(standard_library(), path)) is not None]
    found = {document.path: digest(document) for document in documents}
    if changed := sorted(path for path in expected if found.get(path) != expected[path]):
        raise StaleMeasurementError(
            f"This Python's standard library has no such text of {', '.join(changed)} as the model was measured on. "
            f"Run the Python release that {folder / 'measurement.json'} names."
        )
    return measure(*load(folder, device), documents)
