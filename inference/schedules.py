"""What keepers do from time to time on hosts that serve adapters."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from django.conf import settings

from common.tenancy import operator
from common.timetable import every
from inference.engine.kept import remove_old
from training.models import Adapter


@every(timedelta(minutes=1), on_each_host=True, slow=True)
def remove_copies_of_deleted_adapters() -> None:
    """The inference server keeps copies by digest. It has no database, and does not hear that an organization is gone."""
    root = Path(settings.CACHED_ADAPTERS_ROOT)
    copies = {folder.name: folder for folder in root.iterdir()} if root.is_dir() else {}
    with operator():
        known = set(Adapter.objects.filter(digest__in=copies).values_list("digest", flat=True))
    for digest, folder in copies.items():
        if digest not in known and not digest.startswith("."):  # that one is being made
            shutil.rmtree(folder, ignore_errors=True)


@every(timedelta(hours=1), on_each_host=True, slow=True)
def remove_quantized_bases_that_no_start_uses() -> None:
    remove_old(Path(settings.QUANTIZED_BASES_ROOT))
