"""Datasets and versions by what people call them: the id of the API, the one of the database, or the beginning of that."""

from __future__ import annotations

from common.errors import Invalid
from common.jobs import JobStatus
from common.lookup import NAMED_AT_MOST, SHORT, digits_of, keys_beginning, the_only
from common.text import one_line
from datasets.models import Dataset, DatasetVersion


def find(text: str) -> Dataset | DatasetVersion:
    """The one dataset or version that `text` names. Raises Invalid, which says what to type instead."""
    digits = digits_of(text, {Dataset.__name__, DatasetVersion.__name__})
    between = keys_beginning(digits)
    found: list[Dataset | DatasetVersion] = [
        *DatasetVersion.objects.filter(pk__range=between).select_related("dataset__organization", "upload")[
            : NAMED_AT_MOST + 1
        ],
        *Dataset.objects.filter(pk__range=between).select_related("organization")[: NAMED_AT_MOST + 1],
    ]
    if not found:
        raise Invalid(
            f"No dataset's or version's id begins with {one_line(text, 60)}: `manage.py jobs --all` lists them."
        )
    return the_only(found, text, digits)


def dataset_named(text: str) -> Dataset:
    """Of a version's id, the dataset that it is one of. Raises Invalid."""
    found = find(text)
    dataset: Dataset = found if isinstance(found, Dataset) else found.dataset
    return dataset


def finished_version_named(text: str) -> DatasetVersion:
    """A version that has its files; of a dataset's id, the newest such. Raises Invalid, which says why there is none."""
    found = find(text)
    if (found if isinstance(found, Dataset) else found.dataset).deleted_at is not None:
        raise Invalid(f"{found} was deleted: its rows are gone.")
    if isinstance(found, DatasetVersion):
        return _finished(found)
    versions = DatasetVersion.objects.filter(dataset=found).select_related("dataset", "upload").order_by("-number")
    newest = versions.filter(status=JobStatus.SUCCEEDED).first() or versions.first()
    if newest is None:
        raise Invalid(f"{found} has no version.")
    return _finished(newest)


def _finished(version: DatasetVersion) -> DatasetVersion:
    name, short = one_line(str(version), 200), version.pk.hex[:SHORT]
    if version.status in (JobStatus.QUEUED, JobStatus.RUNNING):
        raise Invalid(
            f"{name} is {version.status}: wait until it is made. `manage.py jobs show {short}` says how far it is."
        )
    if version.status == JobStatus.FAILED:
        raise Invalid(f"{name} FAILED, and has no rows: {one_line(version.error_message or '', 500)}")
    if version.status != JobStatus.SUCCEEDED or not version.storage_prefix:
        raise Invalid(f"{name} is {version.status}, and has no rows.")
    return version
