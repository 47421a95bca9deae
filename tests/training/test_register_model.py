"""`manage.py register_model`: an adapter that was trained elsewhere is checked like any untrusted file, or leaves nothing."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from accounts.models import AuditEntry, Organization, Quota, UsageEntry
from accounts.usage_kinds import UsageKind
from common.child import ChildError
from common.errors import Invalid
from common.lookup import api_id
from common.tenancy import operator
from datasets.sending import AtTheShell
from tests.cast import Person, make_person
from tests.commands import said_by
from tests.rows import BASE
from tests.training.peft_adapters import change_config, make_peft_adapter
from training.catalogue import SMALL
from training.models import Adapter
from training.registering import prefix_of, register, remove_given_up, usage_key
from training.trainer import inspection
from training.trainer.artifact import adapter_digest

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_peft_adapter(tmp_path_factory.mktemp("made") / "adapter")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(made, tmp_path / "adapter"))


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def command(capfd: Any, folder: Path, *more: object) -> tuple[int, list[str], str]:
    return said_by(capfd, "register_model", folder, "--organization", "ada-s", *more)


def adapters() -> list[Adapter]:
    with operator():
        return list(Adapter.objects.order_by("version"))


def nothing_is_left() -> bool:
    """No row, no reservation, no entry in a log, no file in storage, no folder that somebody worked in."""
    with operator():
        rows = [Adapter.objects.count(), UsageEntry.objects.count(), AuditEntry.objects.count()]
    files = [path for path in Path(default_storage.path("")).rglob("*") if path.is_file()]
    attempts = Path(django_settings.ATTEMPTS_ROOT)
    return (rows, files, list(attempts.iterdir()) if attempts.exists() else []) == ([0, 0, 0], [], [])


def test_an_adapter_of_pefts_becomes_a_candidate_that_computes_the_same(
    ada: Person, folder: Path, tmp_path: Path, capfd: Any
) -> None:
    status, output, errors = command(capfd, folder, "--name", "Elsewhere", "--base-model", BASE)
    assert (status, errors) == (0, "")
    (adapter,) = adapters()
    assert output == [
        f"  Copying {folder}",
        "  Checking it against its base model",
        "  Storing it",
        f"REGISTERED: adapter Elsewhere:1, digest {adapter.digest}",
        output[4],
        f"In the API: {api_id(adapter)}",
    ]
    assert output[4].endswith(f"/admin/training/adapter/{adapter.pk}/change/")
    assert (adapter.stage, adapter.training_run_id, adapter.test_loss) == ("CANDIDATE", None, None)
    assert (adapter.base_model_name, adapter.base_model_revision) == (BASE, SMALL.revision)
    assert adapter.size_bytes == (folder / "adapter_model.safetensors").stat().st_size
    with operator():
        usage = UsageEntry.objects.get()
        entry = AuditEntry.objects.get()
    assert (usage.key, usage.amount, usage.lapses_at) == (usage_key(adapter.pk), adapter.size_bytes, None)
    assert (entry.actor, entry.action, entry.target) == ("command", "adapter.register", f"adapter:{adapter.pk}")
    assert entry.details == {"digest": adapter.digest}
    kept = Path(default_storage.path(adapter.storage_prefix))
    assert sorted(path.name for path in kept.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert adapter_digest(kept) == adapter.digest
    assert (kept / "README.md").read_text() == adapter.card
    assert (
        "| target modules | c\\_fc, q\\_proj |" in adapter.card or "| target modules | c_fc, q_proj |" in adapter.card
    )
    assert list(Path(django_settings.ATTEMPTS_ROOT).iterdir()) == []
    assert same_logits(folder, kept)


def same_logits(one: Path, other: Path) -> bool:
    """To peft."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    found = []
    for each in (one, other):
        base = AutoModelForCausalLM.from_pretrained(SMALL.folder)
        with torch.inference_mode():
            found.append(PeftModel.from_pretrained(base, each).eval()(input_ids=torch.arange(2, 40)[None]).logits)
    return bool(torch.equal(*found))


def test_the_same_files_once_more_are_the_same_adapter(ada: Person, folder: Path, capfd: Any) -> None:
    change_config(folder, base_model_name_or_path=BASE)
    for _ in range(2):
        status, output, errors = command(capfd, folder, "--name", "Elsewhere")
        assert (status, errors) == (0, "")
    (adapter,) = adapters()
    assert "  These files are registered already: this is the adapter." in output
    with operator():
        assert [each.key for each in UsageEntry.objects.all()] == [usage_key(adapter.pk)]
    prefix = f"t/{ada.organization.pk}/adapters"
    assert list(default_storage.listdir(prefix)[0]) == [str(adapter.pk)]


def test_a_base_model_that_its_configuration_does_not_name_is_asked_for(ada: Person, folder: Path, capfd: Any) -> None:
    status, output, errors = command(capfd, folder, "--name", "Elsewhere")
    assert (status, output) == (1, [f"  Copying {folder}", "  Checking it against its base model"])
    assert f"names '{SMALL.folder}' as its base model, which is not on the list: say with --base-model which" in errors
    assert errors.endswith("Nothing was registered (ADAPTER_BASE_UNKNOWN).\n")
    assert nothing_is_left()


# ---------------------------------------------------------------------------------------------- files


def _without_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def _with_a_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def _without_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def _without_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _with_a_pipe(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    os.mkfifo(folder / "adapter_model.safetensors")


def _with_a_long_config(folder: Path) -> None:
    (folder / "adapter_config.json").write_bytes(b" " * 1_000_001)


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (_without_weights, "NO_ADAPTER", "has no adapter_model.safetensors: name a folder that peft's"),
        (_with_a_pickle, "ADAPTER_NOT_SAFETENSORS", "a pickle, which can run code when it is read"),
        (_without_config, "NO_ADAPTER", "has no adapter_config.json"),
        (_without_folder, "NO_ADAPTER", "There is no folder"),
        (_with_a_pipe, "NO_ADAPTER", "is no file"),
        (_with_a_long_config, "ADAPTER_INVALID", "has 1,000,001 bytes, and may have 1,000,000"),
    ],
)
def test_a_folder_that_is_no_adapter_is_refused_before_anything_is_read(
    ada: Person, folder: Path, capfd: Any, spoil: Callable[[Path], None], code: str, said: str
) -> None:
    spoil(folder)
    status, output, errors = command(capfd, folder, "--name", "Elsewhere", "--base-model", BASE)
    assert (status, output) == (1, [])
    assert said in errors and errors.endswith(f"Nothing was registered ({code}).\n")
    assert nothing_is_left()


# ---------------------------------------------------------------------------------------------- what is in them


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What the child would find, in this process, which is not to be limited."""
    monkeypatch.setattr(inspection, "limit_memory", lambda weights_bytes: None)
    here = {"name": BASE, "revision": "1", "path": str(SMALL.folder), "is_here": True}
    away = {"name": "big/model", "revision": "a" * 40, "path": "/nowhere", "is_here": False}

    def inspect(folder: Path, base_model: str | None = BASE) -> dict[str, Any]:
        return inspection.inspect(folder, {"base_model": base_model, "base_models": [away, here]})

    return inspect


def test_what_is_in_the_files_is_told(inspected: Callable[..., dict[str, Any]], folder: Path) -> None:
    assert inspected(folder) == {
        "base_model": BASE,
        "rank": 4,
        "alpha": 6,
        "uses_rslora": False,
        "target_modules": ["c_fc", "q_proj"],
        "layers": 10,
        "parameters": inspected(folder)["parameters"],
        "dtype": "float32",
    }
    change_config(folder, base_model_name_or_path=BASE, revision="main")
    assert inspected(folder, None)["base_model"] == BASE


@pytest.mark.parametrize(
    ("changes", "base_model", "code", "said"),
    [
        ({"base_model_name_or_path": []}, None, "ADAPTER_BASE_UNKNOWN", "names '[]'"),
        ({"base_model_name_or_path": BASE, "revision": "2"}, None, "ADAPTER_BASE_MISMATCH", "at revision '2'"),
        ({"base_model_name_or_path": BASE}, "big/model", "ADAPTER_BASE_MISMATCH", f"was trained on '{BASE}'"),
        ({"base_model_name_or_path": "big/model"}, None, "BASE_MODEL_UNAVAILABLE", "put a copy into /nowhere"),
        ({"use_dora": True}, BASE, "ADAPTER_INVALID", "'use_dora' is not supported"),
        ({"r": 5}, BASE, "ADAPTER_INVALID", "should have the shape [5, "),
        ({"r": 257}, BASE, "ADAPTER_INVALID", "from 1 to 256"),
        ({"target_modules": "all-linear"}, BASE, "ADAPTER_INVALID", "list of module names"),
        ({"target_modules": ["lm_head"]}, BASE, "ADAPTER_INVALID", "no module named 'lm_head'"),
        ({"peft_type": "IA3"}, BASE, "ADAPTER_INVALID", "does not describe a LoRA adapter"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    inspected: Callable[..., dict[str, Any]],
    folder: Path,
    changes: dict[str, Any],
    base_model: str | None,
    code: str,
    said: str,
) -> None:
    change_config(folder, **changes)
    with pytest.raises(ChildError) as refusal:
        inspected(folder, base_model)
    assert refusal.value.code == code
    assert said in refusal.value.message


def test_weights_that_do_not_fit_are_refused(inspected: Callable[..., dict[str, Any]], folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    whole = load_file(path)
    name = min(whole)
    odd: list[tuple[str, bytes | dict[str, Any]]] = [
        ("should have the shape", whole | {name: whole[name].T.contiguous()}),
        ("should be of a floating-point type", whole | {name: whole[name].to(torch.int32)}),
        ("not finite", whole | {name: torch.full_like(whole[name], torch.nan)}),
        ("lacks the tensor", {key: value for key, value in whole.items() if key != name}),
        ("has an unknown tensor", whole | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}),
        ("not a whole safetensors file", path.read_bytes()[:-100]),
        ("not a whole safetensors file", b"\x80\x04pickle" * 100),
        ("not a whole safetensors file", struct.pack("<Q", 2**63) + b"{}"),
    ]
    for said, content in odd:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_file(content, path)
        with pytest.raises(ChildError, match=said) as refusal:
            inspected(folder)
        assert refusal.value.code == "ADAPTER_INVALID"
        assert "plain LoRA on linear layers" in refusal.value.message


def test_the_child_says_so_to_the_operator_and_nothing_is_left(ada: Person, folder: Path, capfd: Any) -> None:
    change_config(folder, use_dora=True)
    status, _, errors = command(capfd, folder, "--name", "Elsewhere", "--base-model", BASE)
    assert status == 1
    assert "'use_dora' is not supported" in errors and errors.endswith("Nothing was registered (ADAPTER_INVALID).\n")
    assert nothing_is_left()


# ---------------------------------------------------------------------------------------------- who, and how much


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--organization", "adas", "--name", "x"], "No organization has the slug or the id 'adas'; there is ada-s."),
        (["--organization", "ada-s", "--name", " "], "name should be 1 to 150 characters"),
        (["--organization", "ada-s", "--name", "x", "--base-model", "gpt-5"], "There is no base model 'gpt-5'"),
    ],
)
def test_what_there_is_not_is_said(ada: Person, folder: Path, capfd: Any, arguments: list[str], said: str) -> None:
    status, output, errors = said_by(capfd, "register_model", folder, *arguments)
    assert (status, output) == (1, [])
    assert said in errors
    assert nothing_is_left()


def test_an_organization_registers_no_more_than_it_may_store(ada: Person, folder: Path, capfd: Any) -> None:
    size = (folder / "adapter_model.safetensors").stat().st_size
    with operator():
        Quota.objects.create(organization=ada.organization, storage_bytes=size - 1)
    status, output, errors = command(capfd, folder, "--name", "Elsewhere", "--base-model", BASE)
    assert (status, output) == (1, [])
    assert f"may store {size - 1:,} bytes and has 0" in errors
    assert nothing_is_left()


def test_one_that_is_about_to_be_deleted_gets_nothing_more(ada: Person, folder: Path, capfd: Any) -> None:
    with operator():
        Organization.objects.filter(pk=ada.organization.pk).update(closes_at=timezone.now() + timedelta(days=1))
    status, _, errors = command(capfd, folder, "--name", "Elsewhere", "--base-model", BASE)
    assert status == 1 and "about to be deleted" in errors
    assert nothing_is_left()


# ---------------------------------------------------------------------------------------------- what goes wrong on the way


def by_hand(person: Person, folder: Path, say: Callable[[str], None] = lambda text: None) -> Adapter:
    organization_id = person.organization.pk
    actor = AtTheShell(user_id=None, roles={organization_id: "OWNER"})
    return register(
        actor=actor, organization_id=organization_id, folder=folder, name="Elsewhere", base_model=BASE, say=say
    )


@pytest.mark.parametrize("at", ["Checking", "Storing"])
def test_whoever_interrupts_it_leaves_nothing(ada: Person, folder: Path, at: str) -> None:
    def say(text: str) -> None:
        if text.startswith(at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        by_hand(ada, folder, say)
    assert nothing_is_left()


def test_files_that_change_while_they_are_read_are_not_registered(ada: Person, folder: Path) -> None:
    def say(text: str) -> None:
        if text.startswith("Copying"):
            with (folder / "adapter_model.safetensors").open("ab") as file:
                file.truncate(100)

    with pytest.raises(Invalid) as refusal:
        by_hand(ada, folder, say)
    assert refusal.value.code == "FILES_CHANGED"
    assert nothing_is_left()


@pytest.mark.slow
def test_storage_that_refuses_even_the_tidying_is_tidied_by_the_keeper(ada: Person, folder: Path) -> None:
    def say(text: str) -> None:
        if text.startswith("Storing"):
            place = Path(default_storage.path(f"t/{ada.organization.pk}"))
            place.mkdir(parents=True)
            (place / "adapters").write_text("in the way")

    with pytest.raises(OSError):
        by_hand(ada, folder, say)
    Path(default_storage.path(f"t/{ada.organization.pk}/adapters")).unlink()
    with operator():
        assert not Adapter.objects.exists()
        assert UsageEntry.objects.update(lapses_at=timezone.now() - timedelta(minutes=11)) == 1
    remove_given_up()
    assert nothing_is_left()


@pytest.mark.slow
def test_what_one_left_that_was_killed_goes_once_its_reservation_has_lapsed(ada: Person, folder: Path) -> None:
    registered, organization_id = by_hand(ada, folder), ada.organization.pk
    killed, at_work = uuid4(), uuid4()
    for adapter_id, lapsed in ((killed, timedelta(minutes=11)), (at_work, timedelta(minutes=9))):
        default_storage.save(f"{prefix_of(organization_id, adapter_id)}/adapter_config.json", ContentFile(b"{}"))
        with operator():
            UsageEntry.objects.create(
                organization_id=organization_id,
                kind=UsageKind.STORAGE_BYTES,
                key=usage_key(adapter_id),
                amount=1,
                lapses_at=timezone.now() - lapsed,
            )
    remove_given_up()
    names = default_storage.listdir(f"t/{organization_id}/adapters")[0]
    assert sorted(names) == sorted([str(registered.pk), str(at_work)])
    with operator():
        keys = set(UsageEntry.objects.values_list("key", flat=True))
    assert keys == {usage_key(registered.pk), usage_key(at_work)}


@pytest.mark.slow
def test_one_that_took_longer_than_its_reservation_is_not_registered(ada: Person, folder: Path) -> None:
    def say(text: str) -> None:
        if text.startswith("Storing"):
            with operator():
                UsageEntry.objects.update(lapses_at=timezone.now() - timedelta(seconds=1))

    with pytest.raises(Invalid) as refusal:
        by_hand(ada, folder, say)
    assert refusal.value.code == "TOOK_TOO_LONG"
    assert nothing_is_left()
