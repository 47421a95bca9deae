"""Organizations by what operators call them: the slug, or the id of the database."""

from __future__ import annotations

from difflib import get_close_matches
from uuid import UUID

from accounts.models import Organization
from common.errors import Invalid
from common.text import one_line


def organization_named(text: str) -> Organization:
    """Raises Invalid, which names what is spelled alike."""
    found: Organization | None = Organization.objects.filter(slug=text).first() or _organization_of_id(text)
    if found is None:
        near = get_close_matches(text, Organization.objects.values_list("slug", flat=True), 3)
        raise Invalid(
            f"No organization has the slug or the id {one_line(text, 60)!r}"
            + (f"; there is {', '.join(near)}." if near else ": the admin lists them.")
        )
    return found


def _organization_of_id(text: str) -> Organization | None:
    try:
        key = UUID(text)
    except ValueError:
        return None
    found: Organization | None = Organization.objects.filter(pk=key).first()
    return found
