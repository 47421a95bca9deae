"""The models that somebody may ask: the base model that is served, and their adapters of it as name:version."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from common.tenancy import Principal, reading
from inference.naming import model_named
from training import catalogue
from training.models import Adapter, AdapterStage

MOST_LISTED = 1_000
"""The newest; those beyond have their names all the same."""

_COLUMNS = ("name", "version", "created_at", "organization__slug", "base_model_name", "digest", "stage")


def models_of(principal: Principal) -> dict[str, Any]:
    """All that a completion may name, the base model first, then adapters, newest first."""
    with reading(principal):
        servable = Adapter.objects.visible_to(principal).filter(base_model_name=catalogue.default().name)
        rows = list(servable.exclude(stage=AdapterStage.ARCHIVED).values_list(*_COLUMNS)[:MOST_LISTED])
    return {"object": "list", "data": [_base(), *(_adapter(row) for row in rows)]}


def model_of(principal: Principal, name: str) -> dict[str, Any]:
    """One of them, or one that is archived, or of another base model. Raises NotFound, and Invalid."""
    with reading(principal):
        adapter = model_named(principal, name)
        if adapter is None:
            return _base()
        (row,) = Adapter.objects.visible_to(principal).filter(pk=adapter.pk).values_list(*_COLUMNS)
        return _adapter(row)


def _base() -> dict[str, Any]:
    return {"id": catalogue.default().name, "object": "model", "created": 0, "owned_by": "platform"}


def _adapter(row: Iterable[Any]) -> dict[str, Any]:
    name, version, created_at, slug, base_model, digest, stage = row
    assert isinstance(created_at, datetime)
    return {
        "id": f"{name}:{version}",
        "object": "model",
        "created": int(created_at.timestamp()),
        "owned_by": slug,
        "base_model": base_model,
        "digest": digest,
        "stage": stage,
    }
