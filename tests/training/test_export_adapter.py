"""`manage.py export_adapter`: an adapter's files, or its base model with it merged in, whose answers are those of both."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.files.storage import default_storage

from accounts.models import AuditEntry
from common.child import Attempt, ChildError
from common.lookup import api_id
from common.tenancy import operator
from tests.cast import Person, make_person
from tests.commands import said_by
from tests.training.peft_adapters import make_peft_adapter, stored
from training.catalogue import SMALL
from training.exporting import PROMPTS
from training.models import Adapter
from training.trainer import merging
from training.trainer.artifact import adapter_digest

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_peft_adapter(tmp_path_factory.mktemp("made") / "adapter")


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "adapter"))


@pytest.fixture
def adapter(ada: Person, folder: Path) -> Adapter:
    return stored(ada, folder, card="# The card\n")


def command(capfd: Any, adapter: Adapter, output: Path, *more: object) -> tuple[int, list[str], str]:
    return said_by(capfd, "export_adapter", adapter.pk.hex[:8], "--output", output, *more)


def test_its_files_are_written_as_peft_reads_them(adapter: Adapter, tmp_path: Path, capfd: Any) -> None:
    output = tmp_path / "out"
    status, lines, errors = said_by(capfd, "export_adapter", api_id(adapter), "--output", output)
    assert (status, errors, lines) == (0, "", [f"Adapter First:1, digest {adapter.digest}: {output}"])
    assert adapter_digest(output) == adapter.digest
    assert (output / "README.md").read_text() == "# The card\n"
    with operator():
        entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.target) == ("command", "adapter.export", f"adapter:{adapter.pk}")
    assert entry.details == {"digest": adapter.digest, "form": "peft"}


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model.eval()(input_ids=torch.arange(2, 60)[None]).logits.float()


@pytest.mark.parametrize("quantization", [pytest.param("NONE", marks=pytest.mark.slow), "NF4"])
def test_the_merged_model_answers_as_base_and_adapter_do(
    ada: Person, folder: Path, tmp_path: Path, capfd: Any, quantization: str
) -> None:
    """peft on the base as it was held in training is the judge; the model is loaded as anybody loads one."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.trainer.config import Quantization
    from training.trainer.quantization import load_base

    adapter = stored(ada, folder, config={"quantization": quantization})
    output = tmp_path / "merged"
    status, lines, errors = command(capfd, adapter, output, "--merged", "--dtype", "float32")
    assert (status, errors) == (0, ""), lines
    assert lines[:4] == [
        f"  Loading base model {SMALL.name}",
        f"  Comparing on {len(PROMPTS)} prompts",
        "  Writing the merged model in float32",
        "  Loading it again, and comparing",
    ]
    assert "(0.0001 allowed) from those of base and adapter" in lines[4]
    assert lines[5].startswith(f"{SMALL.name} with First:1, ") and lines[5].endswith(f" bytes: {output}")
    merged = AutoModelForCausalLM.from_pretrained(output, dtype="auto")
    assert merged.dtype == torch.float32
    base = load_base(SMALL.folder, Quantization(quantization), torch.device("cpu"))
    bare = logits(base)
    expected = logits(PeftModel.from_pretrained(base, folder))
    found = logits(merged)
    largest = float(expected.abs().max())
    assert float((found - expected).abs().max()) < 1e-4 * largest
    assert float((bare - expected).abs().max()) > 0.02 * largest, "the adapter should change something"
    other = logits(AutoModelForCausalLM.from_pretrained(SMALL.folder))
    assert float((bare - other).abs().max()) > 1e-3 * largest or quantization == "NONE"
    assert (
        AutoTokenizer.from_pretrained(output)("def f(x):").input_ids
        == AutoTokenizer.from_pretrained(SMALL.folder)("def f(x):").input_ids
    )
    assert f"{adapter.digest} merged into its weights" in (output / "README.md").read_text()
    with operator():
        entry = AuditEntry.objects.get()
    assert entry.details == {"digest": adapter.digest, "form": "merged float32"}
    assert list(Path(django_settings.ATTEMPTS_ROOT).iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".part")) == []


def orders_for(adapter: Adapter, folder: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "base_model": {"name": SMALL.name, "path": str(SMALL.folder)},
        "quantization": "NF4",
        "folder": str(folder),
        "digest": adapter.digest,
        "dtype": "bfloat16",
        "prompts": list(PROMPTS),
        "output": str(output),
        **changes,
    }


def attempt_in(folder: Path) -> Attempt:
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    return Attempt(folder)


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 16), ("float16", 16), ("float32", 32)])
def test_each_type_keeps_to_its_tolerance(
    adapter: Adapter, folder: Path, tmp_path: Path, dtype: str, bits: int
) -> None:
    from safetensors import safe_open

    output = tmp_path / "merged"
    result = merging.merge(attempt_in(tmp_path / "work"), orders_for(adapter, folder, output, dtype=dtype))
    assert 0 < result["difference"] < merging.TOLERANCES[dtype] / 2
    assert result["same_tokens"] > 0.9 * result["positions"]
    assert json.loads((output / "config.json").read_text())["dtype"] == dtype
    with safe_open(output / "model.safetensors", framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds == {{"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[dtype]}
    assert result["size_bytes"] == pytest.approx(SMALL.parameters * bits / 8, rel=0.01)


def test_a_model_that_answers_otherwise_is_refused(
    adapter: Adapter, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = merging._merged
    monkeypatch.setattr(merging, "_merged", lambda layer, name, matrices: whole(layer, name, matrices) * 1.01)
    with pytest.raises(ChildError) as refusal:
        merging.merge(attempt_in(tmp_path / "work"), orders_for(adapter, folder, tmp_path / "merged", dtype="float32"))
    assert refusal.value.code == "MERGE_DIFFERS"
    assert "may by 0.0001 in float32" in refusal.value.message


def test_no_folder_is_overwritten_and_none_is_left_half(adapter: Adapter, tmp_path: Path, capfd: Any) -> None:
    output = tmp_path / "out"
    output.mkdir()
    status, lines, errors = command(capfd, adapter, output)
    assert (status, lines) == (1, [])
    assert errors == f"{output} exists, and is left as it is: name another folder, or remove that one first.\n"
    status, _, errors = command(capfd, adapter, tmp_path / "no" / "out")
    assert (status, errors) == (1, f"There is no folder {tmp_path / 'no'}: make it, or name another one.\n")
    path = Path(default_storage.path(f"{adapter.storage_prefix}/adapter_model.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    for more in ([], ["--merged"]):
        status, _, errors = command(capfd, adapter, tmp_path / "other", *more)
        assert status == 1 and "not those that were registered: nothing was written" in errors
    path.unlink()
    status, _, errors = command(capfd, adapter, tmp_path / "other")
    assert status == 1 and "is not in storage any more" in errors
    assert sorted(path.name for path in tmp_path.iterdir() if "o" in path.name and path.name != "storage") == ["out"]
    with operator():
        assert not AuditEntry.objects.exists()


def test_an_adapter_of_another_revision_is_not_merged(ada: Person, folder: Path, tmp_path: Path, capfd: Any) -> None:
    adapter = stored(ada, folder, base_model_revision="0")
    status, _, errors = command(capfd, adapter, tmp_path / "merged", "--merged")
    assert (status, errors) == (1, f"It was trained on revision 0 of {SMALL.name}, and the platform has 1.\n")


def test_an_id_that_names_nothing_is_said(ada: Person, tmp_path: Path, capfd: Any) -> None:
    status, _, errors = said_by(capfd, "export_adapter", "00ff00ff", "--output", tmp_path / "out")
    assert (status, errors) == (1, "No adapter's id begins with 00ff00ff: the admin lists them.\n")
