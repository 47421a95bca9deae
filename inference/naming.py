"""Models by what people call them: an adapter as name:version, a base model by its own name. Aliases will stand beside them."""

from __future__ import annotations

import re

from django.db.models import QuerySet

from common.errors import Invalid, NotFound
from common.tenancy import Principal
from common.text import is_storable
from training import catalogue
from training.models import Adapter

_VERSION = re.compile(r"(.+):([1-9][0-9]{0,8})", re.DOTALL)


def model_named(actor: Principal, name: str) -> Adapter | None:
    """The adapter that `name` is of, None for the base model that is served. In the caller's scope.

    Raises NotFound, and Invalid for a base model that is not served, or where several organizations have such an adapter.
    """
    if is_base_model(name):
        return None
    adapters = Adapter.objects.visible_to(actor)
    found = adapters_named(name, adapters) if is_storable(name) else []
    if not found:
        raise NotFound
    if len(found) > 1:
        message = "Several of your organizations have an adapter of this name and version: say which by adapterId."
        raise Invalid(message, code="AMBIGUOUS", field="model")
    return found[0]


def is_base_model(name: str) -> bool:
    """Whether it is the base model that is served. Raises Invalid for one that is not."""
    served = catalogue.default().name
    if name != served and any(model.name == name for model in catalogue.ALLOWED):
        message = f"{name} is not served here: the inference server holds {served}."
        raise Invalid(message, code="BASE_MODEL_NOT_SERVED", field="model")
    return name == served


def adapters_named(name: str, among: QuerySet[Adapter]) -> list[Adapter]:
    """Those of this name and version: one at most of each organization."""
    parts = _VERSION.fullmatch(name)
    if parts is None:
        return []
    return list(among.filter(name=parts[1], version=int(parts[2])))
