"""Holds: whoever uses a version on the right says so here, and is never asked."""

from __future__ import annotations

from uuid import UUID

from django.db import connection

from common.errors import Invalid
from datasets.models import Dataset, DatasetVersion, Hold

LABEL_CHARACTERS = 200


class DatasetDeleted(Invalid):
    """Its rows are there to be looked at; its bytes are not."""

    def __init__(self, field: str) -> None:
        super().__init__("This dataset was deleted; make another one.", code="DATASET_DELETED", field=field)


def hold(version: DatasetVersion, *, holder: str, label: str) -> None:
    """Keep a version's bytes until `let_go`, in the transaction in which their use begins. Raises DatasetDeleted.

    Whoever deletes the dataset at the same moment comes before this or after it.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO {Hold._meta.db_table} (organization_id, version_id, holder, label)
            SELECT organization_id, %s, %s, %s FROM {Dataset._meta.db_table}
            WHERE id = %s AND deleted_at IS NULL FOR SHARE
            """,
            [version.pk, holder, label[:LABEL_CHARACTERS], version.dataset_id],
        )
        if cursor.rowcount == 0:
            raise DatasetDeleted("datasetVersionId")


def let_go(organization_id: UUID, *, holder: str) -> None:
    """It is used no more, or was not."""
    Hold.objects.filter(organization_id=organization_id, holder=holder).delete()
