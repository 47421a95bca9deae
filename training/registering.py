"""An adapter that was trained elsewhere becomes one of the platform's: its files are copied, checked, and stored, then it is there.

What was checked is what is stored: the copy. Nothing of it can be seen before the row is, which is written last.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from django.db.models.functions import Now
from django.utils import timezone

from accounts import audit
from accounts.models import UsageEntry
from accounts.permissions import Permission, authorize
from accounts.usage import release, reserve
from accounts.usage_kinds import UsageKind
from common import blobs
from common.errors import Invalid
from common.tenancy import Principal, operator, tenant
from common.text import one_line, plain_text
from datasets.card import escaped
from training import catalogue
from training.aside import carried_out, workspace
from training.files import CARD
from training.models import Adapter
from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_digest

INSPECTION = "training.trainer.inspection"
PICKLE = "adapter_model.bin"
MOST_BYTES = {ADAPTER_CONFIG: 1_000_000, ADAPTER_WEIGHTS: 16 << 30}
BLOCK_BYTES = 1 << 20
RESERVED_FOR = timedelta(hours=1)
GRACE = timedelta(minutes=10)
"""More than a transaction takes that found the reservation good."""
KEY = "adapter:"


def register(
    *,
    actor: Principal,
    organization_id: UUID,
    folder: Path,
    name: str,
    base_model: str | None,
    say: Callable[[str], None],
) -> Adapter:
    """The adapter, once it is there; the one that there is where these files are registered under this name already.

    To be called outside any scope. Raises NotAllowed, QuotaExceeded, and Invalid: NO_ADAPTER, ADAPTER_NOT_SAFETENSORS,
    FILES_CHANGED, ADAPTER_INVALID, ADAPTER_BASE_UNKNOWN, ADAPTER_BASE_MISMATCH, UNKNOWN_BASE_MODEL, BASE_MODEL_UNAVAILABLE, CHILD_DIED,
    TOOK_TOO_LONG.
    """
    name = plain_text(name, "name", 150)
    if base_model is not None:
        catalogue.named(base_model)
    sizes = _sizes(folder)
    size_bytes = sizes[ADAPTER_WEIGHTS]
    adapter = Adapter(pk=uuid4(), organization_id=organization_id, name=name, size_bytes=size_bytes)
    adapter.storage_prefix = prefix_of(organization_id, adapter.pk)
    with tenant(actor):
        authorize(actor, Permission.MANAGE_ADAPTERS, organization_id)
        key, lapses_at = usage_key(adapter.pk), timezone.now() + RESERVED_FOR
        reserve(organization_id, UsageKind.STORAGE_BYTES, size_bytes, key=key, lapses_at=lapses_at)
    try:
        return _registered(actor, adapter, folder, sizes, base_model, say)
    except BaseException:
        with suppress(Exception):  # the keeper does it once the reservation has lapsed
            give_up(organization_id, adapter.pk)
        raise


def _registered(
    actor: Principal,
    adapter: Adapter,
    folder: Path,
    sizes: Mapping[str, int],
    base_model: str | None,
    say: Callable[[str], None],
) -> Adapter:
    with workspace() as work:
        copy = work / "adapter"
        copy.mkdir()
        say(f"Copying {one_line(str(folder), 200)}")
        for file, size_bytes in sizes.items():
            _copy(folder / file, copy / file, size_bytes)
        found = _inspected(copy, base_model, work / "inspection", say)
        base = catalogue.named(found["base_model"])
        (copy / ADAPTER_CONFIG).write_text(json.dumps(_config(base, found), indent=2, sort_keys=True) + "\n")
        adapter.base_model_name, adapter.base_model_revision = base.name, base.revision
        adapter.digest = adapter_digest(copy)
        adapter.card = _card(adapter, found)
        (copy / CARD).write_text(adapter.card)
        if same := _same(actor, adapter):
            say("These files are registered already: this is the adapter.")
            give_up(adapter.organization_id, adapter.pk)
            return same
        say("Storing it")
        blobs.put_folder(adapter.storage_prefix, copy, last=ADAPTER_WEIGHTS)
        return _entered(actor, adapter)


def _entered(actor: Principal, adapter: Adapter) -> Adapter:
    with tenant(actor):
        authorize(actor, Permission.MANAGE_ADAPTERS, adapter.organization_id)
        reserved = UsageEntry.objects.filter(
            organization_id=adapter.organization_id,
            kind=UsageKind.STORAGE_BYTES,
            key=usage_key(adapter.pk),
            lapses_at__gt=Now(),
        )
        if reserved.update(lapses_at=None) != 1:  # the keeper may be removing what was stored
            raise Invalid(f"It took longer than {RESERVED_FOR}: try again.", code="TOOK_TOO_LONG")
        adapter.version = Adapter.next_version(adapter.organization_id, adapter.name)
        adapter.save(force_insert=True)
        audit.record(
            adapter.organization_id,
            actor=actor.name,
            action="adapter.register",
            target=f"adapter:{adapter.pk}",
            digest=adapter.digest,
        )
    return adapter


def give_up(organization_id: UUID, adapter_id: UUID) -> None:
    """Nothing is left of one that was not registered. The files go first: what is reserved says that there may be some."""
    with operator():
        is_registered = Adapter.objects.filter(pk=adapter_id).exists()
    if is_registered:
        return
    blobs.delete_folder(prefix_of(organization_id, adapter_id))
    with operator():
        release(organization_id, UsageKind.STORAGE_BYTES, key=usage_key(adapter_id))


def remove_given_up() -> None:
    """What those have left who were killed while they registered one: their reservations have lapsed."""
    with operator():
        entries = UsageEntry.objects.filter(kind=UsageKind.STORAGE_BYTES, key__startswith=KEY)
        lapsed = entries.filter(lapses_at__lt=Now() - GRACE)
        found = [(each.organization_id, UUID(each.key.removeprefix(KEY))) for each in lapsed]
    for organization_id, adapter_id in found:
        give_up(organization_id, adapter_id)


def usage_key(adapter_id: UUID) -> str:
    return f"{KEY}{adapter_id}"


def prefix_of(organization_id: UUID, adapter_id: UUID) -> str:
    return blobs.key(organization_id, "adapters", adapter_id)


# ---------------------------------------------------------------------------------------------- the files


def _sizes(folder: Path) -> dict[str, int]:
    """Of the two files that are an adapter. Raises Invalid, which says what is missing."""
    shown = one_line(str(folder), 200)
    if not folder.is_dir():
        raise Invalid(
            f"There is no folder {shown}: name one that peft's save_pretrained has written.", code="NO_ADAPTER"
        )
    sizes = {}
    for name, most in MOST_BYTES.items():
        try:
            found = (folder / name).stat()
        except FileNotFoundError:
            raise _missing(folder, name) from None
        if not stat.S_ISREG(found.st_mode):
            raise Invalid(f"{shown}/{name} is no file.", code="NO_ADAPTER")
        if found.st_size > most:
            raise Invalid(f"{shown}/{name} has {found.st_size:,} bytes, and may have {most:,}.", code="ADAPTER_INVALID")
        sizes[name] = found.st_size
    return sizes


def _missing(folder: Path, name: str) -> Invalid:
    shown = one_line(str(folder), 200)
    if name == ADAPTER_WEIGHTS and (folder / PICKLE).exists():
        return Invalid(
            f"{shown} has its weights in {PICKLE}, a pickle, which can run code when it is read. Write them as safetensors where you "
            "trust it: peft's save_pretrained does so by itself.",
            code="ADAPTER_NOT_SAFETENSORS",
        )
    return Invalid(f"{shown} has no {name}: name a folder that peft's save_pretrained has written.", code="NO_ADAPTER")


def _copy(source: Path, target: Path, size_bytes: int) -> None:
    """Raises Invalid where it is not of this size any more."""
    left = size_bytes
    with source.open("rb") as read, target.open("xb") as written:
        while block := read.read(min(BLOCK_BYTES, left + 1)):
            left -= written.write(block)
            if left < 0:
                break
    if left != 0:
        raise Invalid(
            f"{source.name} changed while it was read: try again once nobody writes to it.", code="FILES_CHANGED"
        )


def _inspected(copy: Path, base_model: str | None, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """What is in the files. Raises Invalid."""
    say("Checking it against its base model")
    known = [
        {"name": base.name, "revision": base.revision, "path": str(base.folder), "is_here": base.available}
        for base in catalogue.ALLOWED
    ]
    orders = {"folder": str(copy), "base_model": base_model, "base_models": known}
    return carried_out(INSPECTION, orders, folder, say)


def _config(base: catalogue.BaseModel, found: dict[str, Any]) -> dict[str, Any]:
    """peft's LoraConfig of what was understood, and so without anything else that somebody wrote there."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "revision": base.revision,
        "inference_mode": True,
        "r": found["rank"],
        "lora_alpha": found["alpha"],
        "lora_dropout": 0.0,
        "target_modules": found["target_modules"],
        "bias": "none",
        "use_rslora": found["uses_rslora"],
    }


def _card(adapter: Adapter, found: dict[str, Any]) -> str:
    rows = {
        "base model": adapter.base_model_name,
        "revision": adapter.base_model_revision,
        "rank": found["rank"],
        "alpha": found["alpha"],
        "rank-stabilized": found["uses_rslora"],
        "target modules": ", ".join(found["target_modules"]),
        "layers": f"{found['layers']:,}",
        "parameters": f"{found['parameters']:,}",
        "type": found["dtype"],
        "digest": adapter.digest,
    }
    table = "\n".join(f"| {name} | {escaped(str(value))} |" for name, value in rows.items())
    return f"""---
base_model: {json.dumps(adapter.base_model_name)}
library_name: peft
tags: [lora]
---

# {escaped(adapter.name)}

A LoRA adapter that was trained elsewhere, and registered with its files alone.

| | |
|---|---|
{table}

## Limits

What it learned from, by which recipe, and in what environment is not known here, nor has its loss been measured. Its files fit the base
model named above; whether it was trained on these weights is the word of whoever registered it. What it writes is to be read before it is
run.
"""


def _same(actor: Principal, adapter: Adapter) -> Adapter | None:
    with tenant(actor):
        found = Adapter.objects.filter(
            organization_id=adapter.organization_id, name=adapter.name, digest=adapter.digest
        )
        return found.first()  # type: ignore[no-any-return]
