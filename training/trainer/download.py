"""Base models from the hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from common.child import NO_SPACE, ChildError

FILES = ["*.json", "*.txt", "*.jinja", "*.safetensors"]


def download(name: str, revision: str, folder: Path) -> None:
    """Put a model's files at this commit into `folder`; what an earlier download has left there is not fetched again.

    Raises ChildError BASE_MODEL_UNAVAILABLE where they cannot be had. Nothing reaches for the network after that.
    """
    try:
        snapshot_download(name, revision=revision, local_dir=folder, allow_patterns=FILES)
    except (HfHubHTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise
        message = f"The files of {name} cannot be had from the hub now ({_first_line(error)}): try again later, or put a copy into {folder}."
        raise ChildError("BASE_MODEL_UNAVAILABLE", message) from error
    huggingface_hub.constants.HF_HUB_OFFLINE = True


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
