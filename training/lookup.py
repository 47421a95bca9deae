"""Adapters by what people call them: the id of the API, the one of the database, or the beginning of that."""

from __future__ import annotations

from common.errors import Invalid
from common.lookup import NAMED_AT_MOST, digits_of, keys_beginning, the_only
from common.text import one_line
from training.models import Adapter


def adapter_named(text: str) -> Adapter:
    """The one that `text` names. Raises Invalid, which says what to type instead."""
    digits = digits_of(text, {Adapter.__name__})
    named = Adapter.objects.filter(pk__range=keys_beginning(digits))
    found = list(named.select_related("training_run__dataset_version__dataset")[: NAMED_AT_MOST + 1])
    if not found:
        raise Invalid(f"No adapter's id begins with {one_line(text, 60)}: the admin lists them.")
    return the_only(found, text, digits)
