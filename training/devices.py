"""What training costs on each host that trains: measured by its keeper once a boot, in a child process, beside everything else."""

from __future__ import annotations

import logging
import math
import shutil
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from django.utils import timezone

from common.cluster import at_work_here
from common.outages import AWAY
from common.supervision import NICENESS
from common.tenancy import operator
from training import catalogue
from training.aside import carried_out
from training.catalogue import BaseModel
from training.measured import Device

logger = logging.getLogger(__name__)

MODULE = "training.trainer.calibration"
EDITION = 2
"""Of what is measured: another one has each host measure anew."""
PATIENCE_S = 180.0
SEEN_WITHIN = timedelta(minutes=10)
SEEN_EVERY = timedelta(minutes=2)
TRIED_AGAIN_AFTER_S = 600.0

_failed_at_s: dict[tuple[str, str], float] = {}
"""When this process's measurement of a base model, with its identity, failed last."""


def known_devices(base: BaseModel) -> list[Device]:
    """Those of the hosts that train, or that were the last to: an installation that rests is known as it was."""
    found = list(Device.objects.filter(base_model_name=base.name, base_model_revision=base.revision)[:100])
    return [each for each in found if found[0].seen_at - each.seen_at < SEEN_WITHIN]


def note_this_host() -> None:
    """Note that its devices, as they were measured, are there, while it has workers that train. It takes a moment."""
    if _busy_workers() is None:
        return
    now = timezone.now()
    with operator():
        for base in catalogue.ALLOWED:
            if base.available:
                due = _rows(base).filter(identity=_identity(base), seen_at__lt=now - SEEN_EVERY)
                due.update(seen_at=now)


def measure_this_host() -> None:
    """Measure what has not been since this host has booted, while nothing is being trained on it.

    What failed is left alone for TRIED_AGAIN_AFTER_S. Raises one of AWAY.
    """
    if _busy_workers() != 0:
        return
    for base in catalogue.ALLOWED:
        if base.available and _is_due(base):
            try:
                _measure(base)
            except AWAY:
                raise
            except Exception:
                _failed_at_s[base.name, _identity(base)] = time.monotonic()
                logger.exception("What training %s costs on this host could not be measured.", base.name)


def _busy_workers() -> int | None:
    """How many of those that train here are at work; None where there are none, or nobody can tell, or cares."""
    if not settings.ESTIMATES:
        return None
    try:
        return at_work_here("training")
    except redis.RedisError:
        return None


def _is_due(base: BaseModel) -> bool:
    with operator():
        device = _rows(base).first()
    if device is not None and device.identity == _identity(base):
        return False
    failed_at_s = _failed_at_s.get((base.name, _identity(base)), -math.inf)
    return time.monotonic() - failed_at_s >= TRIED_AGAIN_AFTER_S


def _measure(base: BaseModel) -> None:
    found = measured(base)
    now = timezone.now()
    fields = {
        "name": found["device"],
        "kind": found["kind"],
        "costs": found["costs"],
        "measured_at": now,
        "seen_at": now,
    }
    with operator():
        Device.objects.update_or_create(
            host=socket.gethostname(),
            base_model_name=base.name,
            base_model_revision=base.revision,
            defaults={**fields, "identity": _identity(base)},
        )


def measured(base: BaseModel) -> dict[str, Any]:
    """What a child finds; it ends with this process. Raises Invalid where it finds nothing within PATIENCE_S."""
    # Always the same folder: a keeper that is killed meanwhile leaves no second one.
    folder = Path(settings.HOME) / "calibration"
    shutil.rmtree(folder, ignore_errors=True)
    orders = {"base_path": str(base.folder), "device": settings.DEVICE, "threads": settings.TRAINER_THREADS or None}
    return carried_out(MODULE, orders, folder, logger.info, niceness=NICENESS, patience_s=PATIENCE_S)


def _rows(base: BaseModel) -> Any:
    return Device.objects.filter(
        host=socket.gethostname(), base_model_name=base.name, base_model_revision=base.revision
    )


def _identity(base: BaseModel) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {EDITION} {settings.DEVICE} {settings.TRAINER_THREADS} {base.revision}"
