"""The base models that may be fine-tuned: an allow-list, each at a fixed commit or shipped with the platform.

Nothing here imports torch or transformers: the web process reads it.
"""

from __future__ import annotations

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from common.child import ChildError
from common.errors import Invalid

SHIPPED = Path(__file__).parent / "base_models"
HUB = ("huggingface.co", 443)


@dataclass(frozen=True)
class BaseModel:
    """A model of the allow-list; `revision` is a hub commit, or names the release of a shipped one."""

    name: str
    revision: str
    parameters: int
    context_tokens: int
    license: str
    shipped_as: str | None = None

    @property
    def folder(self) -> Path:
        """Where its files are, or are put: with the platform, or <MODELS_ROOT>/<owner>/<name>."""
        return SHIPPED / self.shipped_as if self.shipped_as else Path(settings.MODELS_ROOT) / self.name

    @property
    def available(self) -> bool:
        """Whether its files are on this machine."""
        return (self.folder / "config.json").exists() and any(self.folder.glob("*.safetensors"))


SMALL = BaseModel(
    name="platform/python-small",
    revision="1",
    parameters=2_764_096,
    context_tokens=1024,
    license="PSF-2.0",
    shipped_as="python-small",
)
STARCODER2_3B = BaseModel(
    name="bigcode/starcoder2-3b",
    revision="733247c55e3f73af49ce8e9c7949bf14af205928",
    parameters=3_030_371_328,
    context_tokens=16_384,
    license="bigcode-openrail-m",
)
ALLOWED = (STARCODER2_3B, SMALL)


def named(name: str) -> BaseModel:
    """Raises Invalid with UNKNOWN_BASE_MODEL, naming those that there are."""
    for model in ALLOWED:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in ALLOWED)
    raise Invalid(
        f"There is no base model {name[:100]!r}; choose one of {known}.", code="UNKNOWN_BASE_MODEL", field="baseModel"
    )


@functools.cache
def default() -> BaseModel:
    """BASE_MODEL; by itself starcoder2-3b where there is an accelerator and its weights can be had, else the shipped one.

    The inference server holds this model, and runs that name none start from it; `make up` decides once and tells all.
    """
    if settings.BASE_MODEL != "auto":
        return named(settings.BASE_MODEL)
    if has_accelerator() and (STARCODER2_3B.available or _hub_reachable()):
        return STARCODER2_3B
    return SMALL


def has_accelerator() -> bool:
    """Whether there is an NVIDIA device that may be used; asked of the kernel, because importing torch takes seconds.

    The driver's file alone is visible in containers, too, that were given no device.
    """
    driver, devices = Path("/proc/driver/nvidia/version"), Path("/dev").glob("nvidia[0-9]*")
    return settings.DEVICE != "cpu" and driver.exists() and any(devices)


def fetch(model: BaseModel) -> Path:
    """The folder of the model's files, downloaded at its fixed commit where they are not here yet; takes its time.

    Raises Invalid with BASE_MODEL_UNAVAILABLE where they cannot be had.
    """
    if not model.available:
        from training.trainer.download import download

        try:
            download(model.name, model.revision, model.folder)
        except ChildError as error:
            raise Invalid(error.message, code=error.code, field="baseModel") from error
    return model.folder


def unavailable(model: BaseModel) -> Invalid:
    message = f"The files of {model.name} are not on this machine: put a copy into {model.folder}, or choose another base model."
    return Invalid(message, code="BASE_MODEL_UNAVAILABLE", field="baseModel")


def _hub_reachable() -> bool:
    if os.environ.get("HF_HUB_OFFLINE") in {"1", "true", "True", "YES", "ON"}:
        return False
    try:
        with socket.create_connection(HUB, timeout=2):
            return True
    except OSError:
        return False
