"""A base model of two layers with its tokenizer, adapters for it in peft's own format, and an engine around it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Starcoder2Config, Starcoder2ForCausalLM

from inference.engine.adapters import AdapterRef, AdapterWeights, read_adapter
from inference.engine.engine import Engine, EngineConfig
from inference.server.app import InferenceApp
from inference.server.backend import ServerConfig
from inference.server.cache import cached_fetch
from tests.inference.asking import Files, make_files, running, shipped_app
from tests.inference.served import SECRET, Running
from tests.inference.stand_in import Model
from tests.web import serving
from training.pretraining.tokenizer import for_transformers, train_tokenizer
from training.trainer.artifact import adapter_digest

BASE = "tiny"
CONTEXT_TOKENS = 128
LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"]
TEXT = "def add(a, b):\n    return a + b\n\n\ndef größe(x):\n    return f'{x} → 🙂'\n" * 4


@pytest.fixture(scope="session")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base") / "tiny"
    tokenizer = for_transformers(train_tokenizer([TEXT], 272), CONTEXT_TOKENS)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = Starcoder2Config(
        vocab_size=272,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT_TOKENS,
        sliding_window=None,
        initializer_range=0.3,  # so that texts differ from token to token and from adapter to adapter
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    Starcoder2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_adapter(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make an adapter with random matrices, written by peft; the folder's name is its digest."""

    def make(seed: int, rank: int = 8, targets: list[str] | None = None) -> Path:
        torch.manual_seed(seed)
        model = Starcoder2ForCausalLM.from_pretrained(base_path)
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=targets or LINEAR_LAYERS, init_lora_weights=False
        )
        made = tmp_path_factory.mktemp("made")
        get_peft_model(model, config).save_pretrained(made)
        described = json.loads((made / "adapter_config.json").read_text())
        described["base_model_name_or_path"] = BASE
        (made / "adapter_config.json").write_text(json.dumps(described))
        return made.rename(made.with_name(adapter_digest(made)))

    return make


@pytest.fixture(scope="session")
def adapters(make_adapter: Callable[..., Path]) -> list[Path]:
    """Three, of different ranks and layers."""
    return [make_adapter(1), make_adapter(2, rank=4, targets=["q_proj", "v_proj"]), make_adapter(3, rank=16)]


@pytest.fixture(scope="session")
def engine(base_path: Path) -> Engine:
    """One with two slots. Tests share it: none leaves a slot in use."""
    return Engine(EngineConfig(BASE, base_path, device="cpu", slots=2, max_rank=16, threads=1))


@pytest.fixture
def read(engine: Engine) -> Callable[[Path], AdapterWeights]:
    return lambda folder: read_adapter(folder, ref_of(folder), engine.adapter_limits)


@pytest.fixture
def copied(adapters: list[Path], tmp_path: Path) -> Path:
    """A copy of the first adapter, to be spoilt."""
    folder = tmp_path / "copy"
    shutil.copytree(adapters[0], folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """An adapter of the shipped base model."""
    return make_files(tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[InferenceApp, str]]:
    """The server of the shipped base model, and where it listens."""
    app = shipped_app(tmp_path_factory.mktemp("cache"))
    with running(app) as url:
        yield app, url


@pytest.fixture
def served(shipped: tuple[InferenceApp, str], settings: Any) -> None:
    """The platform asks it."""
    settings.INFERENCE_URL = shipped[1]


@pytest.fixture(scope="module")
def server(base_path: Path, adapters: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    storage = tmp_path_factory.mktemp("storage")
    for folder in adapters:
        key = storage / "t" / "org-1" / "adapters" / folder.name
        key.parent.mkdir(parents=True, exist_ok=True)
        key.symlink_to(folder)
    fetch = cached_fetch(lambda key: (storage / key).open("rb"), tmp_path_factory.mktemp("cache"))
    engine = EngineConfig("tiny", base_path, device="cpu", slots=2, max_rank=16, threads=1)
    app = InferenceApp(ServerConfig(engine, active_limit=2, queue_limit=2), secret=SECRET, fetch=fetch)
    with running(app) as url:
        yield Running(url, app, storage)
    assert not app.backend.ready


@pytest.fixture
def endless(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """No generation ends by itself before max_new_tokens, and each takes a while."""
    assert server.backend._scheduler is not None
    engine = server.backend._scheduler._engine
    advance = engine.advance

    def slowly(sequence: Any) -> str:
        time.sleep(0.02)
        return advance(sequence)

    monkeypatch.setattr(engine, "_end_tokens", frozenset())
    monkeypatch.setattr(engine, "advance", slowly)


def ref_of(folder: Path, organization: str = "org-1") -> AdapterRef:
    return AdapterRef(organization, f"t/{organization}/adapters/{folder.name[:8]}", adapter_digest(folder))


@pytest.fixture
def model(settings: Any) -> Iterator[Model]:
    model = Model()
    model.may_go_on.set()
    with serving(model) as url:
        settings.INFERENCE_URL = url
        yield model
        model.may_go_on.set()
        model.is_over = True
