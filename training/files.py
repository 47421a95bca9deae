"""The files of an adapter in storage, and links to them for whoever may see it."""

from __future__ import annotations

from enum import Enum

from datasets import links
from training.models import Adapter
from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS

CARD = "README.md"


class AdapterFile(Enum):
    """A folder with these, under these names, is what peft reads."""

    WEIGHTS = (ADAPTER_WEIGHTS, "application/octet-stream")
    CONFIG = (ADAPTER_CONFIG, "application/json")
    CARD = (CARD, "text/markdown")


def link_to(adapter: Adapter, file: AdapterFile) -> str:
    """For ten minutes, to whoever has it."""
    name, content_type = file.value
    return links.url_of(f"{adapter.storage_prefix}/{name}", name, content_type)
