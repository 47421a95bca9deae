"""Adapters by what operators call them: name:version, or the beginning of the id of one, or of the run that made it."""

from __future__ import annotations

from django.db.models import Q

from accounts.models import Organization
from common.errors import Invalid
from common.lookup import NAMED_AT_MOST, SHORT, digits_of, keys_beginning
from common.text import is_storable, one_line
from inference.naming import adapters_named, is_base_model
from training import catalogue
from training.models import Adapter, TrainingRun


def model_of(text: str, organization: Organization | None) -> Adapter | None:
    """The one adapter, of whichever organization or of this one, that `text` names; None for the base model.

    In an operator's scope. Raises Invalid, which says what to type instead.
    """
    if is_base_model(text):
        return None
    among = Adapter.objects.select_related("organization").order_by("-created_at")
    if organization is not None:
        among = among.filter(organization=organization)
    found = adapters_named(text, among) if is_storable(text) else []
    if not found and ":" not in text:
        digits = digits_of(text, {Adapter.__name__, TrainingRun.__name__})
        first, last = keys_beginning(digits)
        of_run = Q(training_run_id__gte=first, training_run_id__lte=last)
        found = list(among.filter(Q(pk__range=(first, last)) | of_run)[: NAMED_AT_MOST + 1])
    if not found:
        raise Invalid(
            f"There is no adapter {one_line(text, 60)}: the admin lists them by name and version. "
            f"The base model is {catalogue.default().name}."
        )
    if len(found) > 1:
        named = ", ".join(
            f"{each.pk.hex[:SHORT]} ({each} of {each.organization.slug})" for each in found[:NAMED_AT_MOST]
        )
        more = " and others" if len(found) > NAMED_AT_MOST else ""
        raise Invalid(
            f"{one_line(text, 60)} names several adapters: {named}{more}. Type the id of one, or --organization."
        )
    return found[0]
