"""An adapter as a folder of an operator's: its files as peft reads them, or merged into its base model.

The folder is there whole or not at all, and takes nobody's place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from accounts import audit
from common import blobs
from common.child import sync_folder
from common.errors import Invalid
from common.tenancy import organizations_scope
from training import catalogue
from training.aside import carried_out, workspace
from training.files import CARD
from training.models import Adapter
from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_digest
from training.trainer.config import Quantization

MERGING = "training.trainer.merging"
DTYPES = ("float32", "bfloat16", "float16")
PROMPTS = (
    "def add(a, b):\n    return",
    "import json\n\n\ndef load(path):\n    with open(path) as file:\n        return json.",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "# Return the n-th Fibonacci number.\n",
)
"""What is compared where nobody names prompts of their own."""


def export_files(adapter: Adapter, output: Path, *, by: str) -> None:
    """Write its three files. To be called outside any scope. Raises Invalid, FileNotFoundError, and OSError."""
    with new_folder(output) as draft:
        draft.mkdir()
        _fetch(adapter, draft)
        try:
            blobs.get(f"{adapter.storage_prefix}/{CARD}", draft / CARD)
        except FileNotFoundError:  # it says nothing that the row does not
            (draft / CARD).write_text(adapter.card)
        _note(adapter, by, form="peft")


def export_merged(
    adapter: Adapter,
    output: Path,
    *,
    by: str,
    dtype: str,
    quantization: Quantization | None,
    prompts: list[str],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Write its base model with it merged in, and return how far the two are apart, as merging.py measures it.

    To be called outside any scope. Raises Invalid: BASE_MODEL_UNAVAILABLE, BASE_MODEL_CHANGED, ADAPTER_DIGEST_MISMATCH,
    MERGE_DIFFERS, and others of the child's; FileNotFoundError, and OSError.
    """
    base = catalogue.named(adapter.base_model_name)
    if not base.available:
        raise catalogue.unavailable(base)
    if base.revision != adapter.base_model_revision:
        raise Invalid(
            f"It was trained on revision {adapter.base_model_revision} of {base.name}, and the platform has {base.revision}.",
            code="BASE_MODEL_CHANGED",
        )
    held = quantization or trained_beside(adapter)
    with new_folder(output) as draft, workspace() as work:
        copy = work / "adapter"
        copy.mkdir()
        _fetch(adapter, copy)
        orders = {
            "base_model": {"name": base.name, "path": str(base.folder)},
            "quantization": held.value,
            "folder": str(copy),
            "digest": adapter.digest,
            "dtype": dtype,
            "prompts": prompts or PROMPTS,
            "output": str(draft.resolve()),
        }
        result = carried_out(MERGING, orders, work / "merging", say)
        (draft / CARD).write_text(_card(adapter, held, dtype, result))
        _note(adapter, by, form=f"merged {dtype}")
    return result


def trained_beside(adapter: Adapter) -> Quantization:
    """How the base model was held; for one that was trained elsewhere, as the platform holds it."""
    run = adapter.training_run
    return Quantization(run.config.get("quantization", Quantization.NF4)) if run else Quantization.NF4


def _fetch(adapter: Adapter, folder: Path) -> None:
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        blobs.get(f"{adapter.storage_prefix}/{name}", folder / name)
    if adapter_digest(folder) != adapter.digest:
        raise Invalid(
            "Its files in storage are not those that were registered: nothing was written. Restore them from a backup, or train "
            "it again.",
            code="ADAPTER_DIGEST_MISMATCH",
        )


def _note(adapter: Adapter, by: str, form: str) -> None:
    with organizations_scope([adapter.organization_id]):
        audit.record(
            adapter.organization_id,
            actor=by,
            action="adapter.export",
            target=f"adapter:{adapter.pk}",
            digest=adapter.digest,
            form=form,
        )


def _card(adapter: Adapter, held: Quantization, dtype: str, result: dict[str, Any]) -> str:
    weights = "as NF4 holds them, which is what it was trained beside" if held is Quantization.NF4 else "as they are"
    return f"""{adapter.card}
## Merged

This is {adapter.base_model_name} (revision {adapter.base_model_revision}) with the adapter {adapter.digest} merged into its weights,
{weights}, in {dtype}. Its logits differ from those of base and adapter by at most {result["difference"]:.2g} of the largest, over
{result["positions"]:,} places in {result["prompts"]} prompts; the likeliest token is the same at {result["same_tokens"]:,} of them.
"""


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A name beside `path` that nobody has, for a folder that becomes `path` when the block ends well, and is removed otherwise.

    Raises Invalid where the name is taken, or there is no such place.
    """
    _refuse_taken(path)
    if not path.parent.is_dir():
        raise Invalid(f"There is no folder {path.parent}: make it, or name another one.")
    draft = path.with_name(f".{path.name[:100]}.{uuid4().hex}.part")
    try:
        yield draft
        _refuse_taken(path)
        draft.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        raise Invalid(f"{path} exists, and is left as it is: name another folder, or remove that one first.")
