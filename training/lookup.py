"""Adapters by what people call them: the id of the API, the one of the database, or the beginning of that."""

from __future__ import annotations

from uuid import UUID

from common.errors import Invalid
from common.lookup import NAMED_AT_MOST, SHORT, digits_of
from common.text import one_line
from training.models import Adapter


def adapter_named(text: str) -> Adapter:
    """The one that `text` names. Raises Invalid, which says what to type instead."""
    digits = digits_of(text, {Adapter.__name__})
    between = tuple(UUID(digits.ljust(32, filler)) for filler in "0f")
    named = Adapter.objects.filter(pk__range=between).select_related("training_run__dataset_version__dataset")
    found = list(named[: NAMED_AT_MOST + 1])
    if not found:
        raise Invalid(f"No adapter's id begins with {one_line(text, 60)}: the admin lists them.")
    if len(found) > 1:
        listed = ", ".join(f"{each.pk.hex[: max(SHORT, len(digits) + 2)]} ({each})" for each in found[:NAMED_AT_MOST])
        more = " and others" if len(found) > NAMED_AT_MOST else ""
        raise Invalid(
            f"{one_line(text, 60)} is the beginning of several ids: {one_line(listed, 500)}{more}. Type more of the one that you mean."
        )
    return found[0]
