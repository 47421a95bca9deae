"""An adapter of the shipped base model as files, and the inference server that answers with it, over real HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import uvicorn
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from common import blobs
from inference.engine.engine import EngineConfig
from inference.server.app import InferenceApp
from inference.server.backend import ServerConfig
from inference.server.cache import cached_fetch
from tests.cast import Person
from tests.rows import BASE, make_adapter
from training.catalogue import SHIPPED
from training.models import Adapter
from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_digest


@dataclass(frozen=True)
class Files:
    """A LoRA adapter of the shipped model as files, with random matrices that make it differ from the base."""

    folder: Path
    digest: str

    def stored_as(self, row: Adapter) -> Adapter:
        """Put them where the row says that its files are, and the digest where predictions repeat it from."""
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            default_storage.save(f"{row.storage_prefix}/{name}", ContentFile((self.folder / name).read_bytes()))
        return row


def make_files(folder: Path) -> Files:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(SHIPPED / "python-small")
    config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "c_fc"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    described = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**described, "base_model_name_or_path": BASE}))
    return Files(folder, adapter_digest(folder))


def hers(person: Person, files: Files, **fields: Any) -> Adapter:
    return files.stored_as(make_adapter(person, digest=files.digest, **fields))


def codes(refusal: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    assert refusal["__typename"] == "OperationInfo", refusal
    return [(one["kind"], one["code"], one["field"]) for one in refusal["messages"]]


@contextmanager
def running(app: InferenceApp) -> Iterator[str]:
    """The URL of the application in a thread of this process, once its base model has generated."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=2))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline = time.monotonic() + 60
        while not app.backend.ready:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()


def shipped_app(cache: Path) -> InferenceApp:
    engine = EngineConfig(BASE, SHIPPED / "python-small", device="cpu", slots=2, max_rank=16, threads=1)
    return InferenceApp(
        ServerConfig(engine), secret=settings.INFERENCE_SECRET, fetch=cached_fetch(blobs.open_read, cache)
    )
