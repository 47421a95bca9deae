"""The rows of a version, counted in tokens: once for each base model, by a worker of datasets."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from common import blobs
from common.clock import ServerClock
from common.jobs import JobStatus, Lease
from common.queues import ring
from common.supervision import Refused, Work
from datasets.files import files_of
from datasets.follow_ups import FollowUp, declare
from datasets.models import DatasetVersion
from training import catalogue
from training.catalogue import BaseModel
from training.measured import ENDED_BADLY, TokenCount

SPLITS = ("train", "validation", "test")
TOKENIZER = "tokenizer.json"
TRIED_AGAIN_AFTER = timedelta(hours=1)


def declare_follow_up() -> None:
    declare(FollowUp(TokenCount, ask=_ask_for_default, prepare=prepare))


def ask(version: DatasetVersion, base: BaseModel) -> TokenCount:
    """The count of `version` for `base`, queued where there is none. In the caller's transaction.

    One that failed within the hour stands: the rows are what they were, and another would most likely fail, too.
    """
    of = {"version": version, "base_model_name": base.name, "base_model_revision": base.revision}
    all_counts = TokenCount.objects.filter(organization_id=version.organization_id, **of)
    counts = all_counts.exclude(status__in=ENDED_BADLY)
    failed = all_counts.filter(status=JobStatus.FAILED, finished_at__gt=ServerClock() - TRIED_AGAIN_AFTER)
    found: TokenCount | None = counts.first() or failed.order_by("-finished_at").first()
    if found is None:
        found = TokenCount(organization_id=version.organization_id, **of)
        try:
            with transaction.atomic():
                found.save(force_insert=True)
        except IntegrityError:  # somebody else has asked at this moment
            return counts.get()
        found.created()
        ring(TokenCount.queue)
    return found


def prepare(count: TokenCount, lease: Lease, folder: Path) -> Work:
    version, base = count.version, catalogue.named(count.base_model_name)
    if not version.storage_prefix:
        raise Refused("DATASET_DELETED", "The dataset was deleted before its tokens were counted.")
    (folder / "data").mkdir(exist_ok=True)
    data = {split: _fetch(version, split, folder / "data") for split in SPLITS}

    def succeeded(count: TokenCount, result: dict[str, Any]) -> None:
        TokenCount.objects.filter(pk=count.pk).update(splits=result["splits"])

    return Work(
        module="training.trainer.counting",
        orders={"tokenizer": str(base.folder / TOKENIZER), "data": data},
        succeeded=succeeded,
    )


def _fetch(version: DatasetVersion, split: str, folder: Path) -> list[str]:
    """Its files, in the order in which a run reads them; a split without rows has none."""
    rows = next((each["rows"] for each in version.splits if each["name"] == split.upper()), 0)
    places = []
    for number, part in enumerate(files_of(version, split.upper()) if rows else []):
        place = folder / f"{split}-{number:05d}.parquet"
        blobs.get_linked(part.key, place)
        places.append(str(place))
    return places


def _ask_for_default(version: DatasetVersion) -> None:
    """A base model whose files are yet to be downloaded has no tokenizer either: it is counted when somebody asks."""
    base = catalogue.default()
    if settings.ESTIMATES and (base.folder / TOKENIZER).is_file():
        ask(version, base)
