"""An upload's row while its bytes arrive. To be called in a thread; raises Refusal where nobody wants them any more."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

from django.utils import timezone

from accounts.models import Membership
from accounts.permissions import Permission, roles_with
from accounts.usage import release, settle
from accounts.usage_kinds import UsageKind
from common import blobs
from common.tenancy import organizations_scope
from datasets.models import Upload, UploadStatus
from datasets.receive.answers import Refusal, not_found
from datasets.tickets import ids_in


def named_by(token: str) -> Upload:
    """The upload that a ticket's url names, whether or not it is complete."""
    ids = ids_in(token)
    if ids is None:
        raise not_found()
    upload = _as_it_is_now(*ids)
    if upload.status is UploadStatus.EXPIRED:
        raise not_found()
    return upload


def as_it_is_now(upload: Upload) -> Upload:
    return _as_it_is_now(upload.organization_id, upload.pk)


def require_waiting(upload: Upload) -> None:
    """Refuse a complete one, and one that was given up, whose place is free for another.

    A transfer that is under way when its ticket expires may end.
    """
    if upload.was_given_up:
        raise not_found()
    if upload.status is UploadStatus.COMPLETE:
        message = "All bytes of this upload have arrived before; start another one."
        raise Refusal(409, "UPLOAD_COMPLETE", message)


def go_on(upload: Upload, received_bytes: int) -> None:
    """Say how far it has come."""
    require_waiting(as_it_is_now(upload))
    report(upload, received_bytes)


def report(upload: Upload, received_bytes: int) -> None:
    with organizations_scope([upload.organization_id]):
        Upload.objects.filter(pk=upload.pk, completed_at=None).update(received_bytes=received_bytes)


def complete(upload: Upload, path: Path, sha256: str) -> None:
    """Store the bytes, then say so. Each transfer has a key of its own: one that died in between is in nobody's way.

    The file is moved where storage is a file system. Other bytes than were announced are refused.
    """
    if upload.expected_sha256 not in ("", sha256):
        message = "The bytes that arrived are not those that the upload was started for; send them again."
        raise Refusal(400, "SHA256_MISMATCH", message)
    require_waiting(as_it_is_now(upload))
    key = blobs.key(upload.organization_id, "uploads", upload.pk, uuid4().hex)
    blobs.put(key, path, move=True)
    if not _say_complete(upload, sha256, key):
        blobs.delete(key)
        require_waiting(as_it_is_now(upload))  # says why it is not
        raise Refusal(409, "UPLOAD_COMPLETE", "Another transfer of this upload has finished first.")


def give_up(upload: Upload) -> None:
    """Nobody will send the rest, and what was reserved for it is free."""
    with organizations_scope([upload.organization_id]):
        if Upload.objects.filter(pk=upload.pk, completed_at=None).give_up():
            release(upload.organization_id, UsageKind.STORAGE_BYTES, key=upload.usage_key)
            return
    require_waiting(as_it_is_now(upload))


def _say_complete(upload: Upload, sha256: str, key: str) -> bool:
    """Whether it was this transfer that made it complete."""
    with organizations_scope([upload.organization_id]):
        # held first: an UPDATE that asks another table, too, does not ask again for a row that it has waited for
        Upload.objects.select_for_update().filter(pk=upload.pk).first()
        waiting = Upload.objects.filter(pk=upload.pk, completed_at=None, organization__closes_at=None).not_given_up()
        won = waiting.update(
            received_bytes=upload.size_bytes, sha256=sha256, completed_at=timezone.now(), storage_key=key
        )
        if won:
            settle(upload.organization_id, UsageKind.STORAGE_BYTES, upload.size_bytes, key=upload.usage_key)
    return won == 1


def _as_it_is_now(organization_id: UUID, upload_id: UUID) -> Upload:
    with organizations_scope([organization_id]):
        upload: Upload | None = Upload.objects.select_related("organization").filter(pk=upload_id).first()
        if upload is None or not _may_send(upload):
            raise not_found()
    if upload.status is not UploadStatus.COMPLETE and upload.organization.closes_at is not None:
        message = "This organization is about to be deleted; it takes no more files."
        raise Refusal(409, "ORGANIZATION_CLOSING", message)
    return upload


def _may_send(upload: Upload) -> bool:
    """Whether whoever announced it could still announce it: a ticket gives nobody more rights than they have."""
    if upload.created_by_id is None:  # a key's, which nobody knows of
        return True
    theirs = Membership.objects.filter(organization_id=upload.organization_id, user_id=upload.created_by_id)
    return theirs.filter(role__in=roles_with(Permission.UPLOAD), user__is_active=True).exists()
