"""An adapter in a slot computes what peft computes, each sequence with its own; what is no adapter is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from inference.engine.adapters import AdapterRef, AdapterStore, AdapterWeights, read_adapter
from inference.engine.engine import Engine
from inference.engine.errors import EngineError
from inference.engine.request import GenerationRequest
from tests.inference.conftest import BASE, ref_of
from training.trainer.config import Quantization
from training.trainer.quantization import load_base

PROMPT = "def add(a, b):\n"
Read = Callable[[Path], AdapterWeights]


def tokens_of(engine: Engine, weights: AdapterWeights | None, prompt: str = PROMPT, count: int = 24) -> list[int]:
    """The greedy tokens, with the adapter in a slot of its own."""
    request = GenerationRequest(prompt, max_new_tokens=count)
    slot = engine.slots.acquire(weights)
    assert slot is not None
    sequence = engine.begin(request, engine.encode_prompt(request), slot)
    assert sequence is not None
    tokens = []
    while sequence.finish_reason is None:
        assert isinstance(engine.advance([sequence])[0], str)
        tokens += sequence.unread
    engine.end(sequence)
    engine.slots.release(slot)
    return tokens


@pytest.fixture(scope="module")
def peft_tokens(base_path: Path, adapters: list[Path]) -> list[list[int]]:
    """The greedy tokens of peft's model for each adapter, and last those of the base alone."""
    model = load_base(base_path, Quantization.NF4, torch.device("cpu"))
    inputs = AutoTokenizer.from_pretrained(base_path)(PROMPT, return_tensors="pt")
    length = inputs["input_ids"].shape[1]

    def greedy(model: torch.nn.Module) -> list[int]:
        return model.generate(**inputs, do_sample=False, max_new_tokens=24, pad_token_id=0)[0, length:].tolist()

    base = greedy(model)
    adapted = []
    for folder in adapters:
        peft_model = PeftModel.from_pretrained(model, folder)
        adapted.append(greedy(peft_model))
        model = peft_model.unload()
    return [*adapted, base]


def test_greedy_tokens_equal_pefts(
    engine: Engine, adapters: list[Path], read: Read, peft_tokens: list[list[int]]
) -> None:
    ours = [tokens_of(engine, read(folder)) for folder in adapters] + [tokens_of(engine, None)]
    assert ours == peft_tokens
    assert len(set(map(tuple, ours))) == 4, "the adapters should differ from each other and from the base"


def test_logits_of_a_slot_do_not_depend_on_who_was_there_before(
    engine: Engine, adapters: list[Path], read: Read, peft_tokens: list[list[int]]
) -> None:
    """More adapters than slots, in every order: a higher rank and more layers before a lower rank and fewer."""
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 1, 0, 2, 0, 1]):
        for index in order:
            assert tokens_of(engine, read(adapters[index])) == peft_tokens[index]
    assert tokens_of(engine, None) == peft_tokens[-1]


def test_the_least_recently_used_free_slot_goes_first(engine: Engine, adapters: list[Path], read: Read) -> None:
    first, second, third = map(read, adapters)
    table = engine.slots
    for weights in (first, second):
        slot = table.acquire(weights)
        assert slot is not None
        table.release(slot)
    held = table.acquire(first)
    other = table.acquire(third)
    assert held is not None
    assert other is not None
    assert set(table.resident()) == {first.ref, third.ref}
    assert table.acquire(second) is None, "both slots are in use"
    assert table.acquire(first) == held, "a second user shares the slot"
    table.release(held)
    assert table.acquire(second) is None, "one user is left"
    table.release(held)
    assert table.acquire(second) == held
    assert table.holder(held) == second.ref
    table.release(held)
    table.release(other)
    assert table.in_use() == 0


def test_equal_files_of_two_organizations_have_two_slots(engine: Engine, adapters: list[Path]) -> None:
    slots = []
    for organization in ("org-1", "org-2"):
        ref = ref_of(adapters[0], organization)
        slots.append(engine.slots.acquire(read_adapter(adapters[0], ref, engine.adapter_limits)))
    assert None not in slots
    assert len(set(slots)) == 2
    for slot in slots:
        engine.slots.release(slot or 0)


def test_another_digest_is_refused(engine: Engine, adapters: list[Path]) -> None:
    ref = AdapterRef("org-1", "key", "0" * 64)
    with pytest.raises(EngineError, match="not those that were registered") as refusal:
        read_adapter(adapters[0], ref, engine.adapter_limits)
    assert refusal.value.code == "ADAPTER_DIGEST_MISMATCH"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_flipped_byte_is_refused(engine: Engine, copied: Path, name: str) -> None:
    ref = ref_of(copied)
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(EngineError) as refusal:
        read_adapter(copied, ref, engine.adapter_limits)
    assert refusal.value.code == "ADAPTER_DIGEST_MISMATCH"


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"peft_type": "LOHA"}, "ADAPTER_INVALID", "does not describe a LoRA adapter"),
        ({"base_model_name_or_path": "another"}, "ADAPTER_BASE_MISMATCH", "not trained on tiny"),
        ({"base_model_name_or_path": None}, "ADAPTER_BASE_MISMATCH", "not trained on tiny"),
        ({"r": 17}, "ADAPTER_INVALID", "from 1 to 16"),
        ({"r": 10**9}, "ADAPTER_INVALID", "from 1 to 16"),
        ({"r": 0}, "ADAPTER_INVALID", "from 1 to 16"),
        ({"r": True}, "ADAPTER_INVALID", "from 1 to 16"),
        ({"r": 4}, "ADAPTER_INVALID", r"should have the shape \[4, 64\]"),
        ({"lora_alpha": None}, "ADAPTER_INVALID", "lora_alpha"),
        ({"lora_alpha": float("nan")}, "ADAPTER_INVALID", "lora_alpha"),
        ({"target_modules": ["q_proj"]}, "ADAPTER_INVALID", "unknown tensor"),
        ({"target_modules": ["w_proj"]}, "ADAPTER_INVALID", "no module named 'w_proj'"),
        ({"target_modules": ".*"}, "ADAPTER_INVALID", "list of module names"),
        ({"target_modules": []}, "ADAPTER_INVALID", "list of module names"),
        ({"use_dora": True}, "ADAPTER_INVALID", "'use_dora' is not supported"),
        ({"modules_to_save": ["lm_head"]}, "ADAPTER_INVALID", "'modules_to_save' is not supported"),
        ({"rank_pattern": {"q_proj": 2}}, "ADAPTER_INVALID", "'rank_pattern' is not supported"),
        ({"bias": "all"}, "ADAPTER_INVALID", "bias is not supported"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    engine: Engine, copied: Path, changes: dict[str, object], code: str, message: str
) -> None:
    path = copied / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(EngineError, match=message) as refusal:
        read_adapter(copied, ref_of(copied), engine.adapter_limits)
    assert refusal.value.code == code


def test_weights_that_do_not_fit_are_refused(engine: Engine, copied: Path) -> None:
    """Each with the right digest: it is what was registered, and still no adapter of this base."""
    path = copied / "adapter_model.safetensors"
    whole = load_file(path)
    name = min(whole)
    huge = json.dumps({name: {"dtype": "F32", "shape": [10**9, 64], "data_offsets": [0, 256 * 10**9]}}).encode()
    odd: list[tuple[str, bytes | dict[str, torch.Tensor]]] = [
        ("should have the shape", whole | {name: whole[name].T.contiguous()}),
        ("should be of a floating-point type", whole | {name: whole[name].to(torch.int32)}),
        ("not finite", whole | {name: torch.full_like(whole[name], torch.nan)}),
        ("lacks the tensor", {key: value for key, value in whole.items() if key != name}),
        ("has an unknown tensor", whole | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}),
        ("not a whole safetensors file", path.read_bytes()[:-100]),
        ("not a whole safetensors file", b""),
        ("not a whole safetensors file", b"\x80\x04pickle" * 100),
        ("not a whole safetensors file", struct.pack("<Q", 2**63) + b"{}"),
        ("not a whole safetensors file", struct.pack("<Q", len(huge)) + huge),
    ]
    for message, content in odd:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_file(content, path)
        with pytest.raises(EngineError, match=message) as refusal:
            read_adapter(copied, ref_of(copied), engine.adapter_limits)
        assert refusal.value.code == "ADAPTER_INVALID"


def test_configs_that_are_none_are_refused(engine: Engine, copied: Path) -> None:
    for content in (b"", b"[]", b"\xff\xfe", b"[" * 100_000, b"null", b" " * 1_000_001):
        (copied / "adapter_config.json").write_bytes(content)
        with pytest.raises(EngineError) as refusal:
            read_adapter(copied, ref_of(copied), engine.adapter_limits)
        assert refusal.value.code == "ADAPTER_INVALID"


def test_the_store_fetches_once_and_forgets_the_least_recently_used(engine: Engine, adapters: list[Path]) -> None:
    folders = {folder.name: folder for folder in adapters}
    fetched: list[str] = []

    def fetch(key: str, digest: str) -> Path:
        fetched.append(digest)
        if digest not in folders:
            raise FileNotFoundError(key)
        return folders[digest]

    store = AdapterStore(fetch, engine.adapter_limits, capacity=2)
    one, two, three = (ref_of(folder) for folder in adapters)
    for ref in (one, two, one, three, one, two):
        assert store.get(ref).ref == ref
    assert fetched == [one.digest, two.digest, three.digest, two.digest]
    with pytest.raises(EngineError) as refusal:
        store.get(AdapterRef("org-1", "gone", "f" * 64))
    assert refusal.value.code == "ADAPTER_NOT_FOUND"


def test_storage_that_is_away_is_no_bug(engine: Engine) -> None:
    def fetch(key: str, digest: str) -> Path:
        raise ConnectionError(BASE)

    with pytest.raises(EngineError) as refusal:
        AdapterStore(fetch, engine.adapter_limits, capacity=2).get(AdapterRef("org-1", "key", "f" * 64))
    assert (refusal.value.code, refusal.value.retry_after_s) == ("ADAPTER_UNAVAILABLE", 5)
