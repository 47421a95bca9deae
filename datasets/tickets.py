"""The address that an upload's bytes are sent to: it names one upload, is signed, and expires with it."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.core import signing

from datasets.models import Upload

_SALT = "datasets.upload"


def url_for(upload: Upload) -> str:
    token = signing.dumps([str(upload.organization_id), str(upload.pk)], salt=_SALT)
    return f"{settings.PUBLIC_URL}/uploads/{token}"


def ids_in(token: str) -> tuple[UUID, UUID] | None:
    """(organization, upload) of a token that this installation signed; None for any other."""
    try:
        organization_id, upload_id = signing.loads(token, salt=_SALT, max_age=settings.UPLOAD_LIFETIME)
        return UUID(organization_id), UUID(upload_id)
    except (signing.BadSignature, ValueError, TypeError):
        return None
