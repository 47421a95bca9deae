"""A local file becomes an upload without a ticket: for an operator at the shell, on a host that has the storage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

from common.errors import Invalid
from common.tenancy import Principal, tenant
from datasets import actions
from datasets.models import Upload
from datasets.receive.answers import Refusal
from datasets.receive.arrival import complete, give_up
from datasets.receive.spool import incoming

BLOCK_BYTES = 1 << 20


class AtTheShell(Principal):
    """An operator at the shell: who that is, the platform does not know. They act as an owner of one organization."""

    @property
    def is_nobody(self) -> bool:
        return False

    @property
    def name(self) -> str:
        return "command"


def sha256_of(path: Path, each_block: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            each_block(len(block))
    return digest.hexdigest()


def upload_of(organization_id: UUID, sha256: str) -> Upload | None:
    """One whose bytes the organization has in storage already. To be called in a scope."""
    complete = Upload.objects.filter(organization_id=organization_id, sha256=sha256).exclude(completed_at=None)
    found: Upload | None = complete.exclude(storage_key="").first()
    return found


def send_file(actor: Principal, organization_id: UUID, path: Path, sha256: str) -> Upload:
    """Store a file as it was when its digest was taken. Raises what start_upload does, and Invalid where it changed."""
    with tenant(actor):
        upload = actions.start_upload(
            actor=actor,
            organization_id=organization_id,
            file_name=path.name,
            size_bytes=path.stat().st_size,
            sha256=sha256,
        )
    copy = incoming() / f"{upload.pk}.{uuid4().hex}"
    try:
        _store(upload, path, copy)
    except BaseException:
        give_up(upload)
        raise
    finally:
        copy.unlink(missing_ok=True)
    with tenant(actor):
        stored: Upload = Upload.objects.get(pk=upload.pk)
        return stored


def _store(upload: Upload, path: Path, copy: Path) -> None:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as source, copy.open("wb") as target:
        while block := source.read(BLOCK_BYTES):
            digest.update(block)
            size += target.write(block)
    if (size, digest.hexdigest()) != (upload.size_bytes, upload.expected_sha256):
        raise Invalid(f"{path} changed while it was read: try again once nobody writes to it.")
    try:
        complete(upload, copy, upload.expected_sha256)
    except Refusal as refusal:
        raise Invalid(refusal.message, code=refusal.code) from refusal
