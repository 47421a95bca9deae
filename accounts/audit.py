"""The audit log: append-only, and chained by hashes in each organization.

PostgreSQL refuses to change or delete a row (a trigger, and missing privileges); whoever gets around that breaks the
chain, and `verify` says where.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from accounts.models import AuditEntry, AuditHead, User
from common.clock import ServerClock
from common.origin import address

PLATFORM = UUID(int=0)
"""In place of an organization, for what concerns none: sign-ins, say."""
BEGINNING = "0" * 64
PAGE = 1000


def record(organization_id: UUID, *, actor: str, action: str, target: str = "", **details: str | int) -> None:
    """Append to the organization's log, in the caller's transaction and scope. `details` are ids and words, no addresses."""
    assert connection.in_atomic_block, "an entry is committed with what it tells of"
    with transaction.atomic():
        head = hold(organization_id)
        entry = AuditEntry(
            organization_id=organization_id,
            sequence=head.sequence + 1,
            at=head.now,
            actor=actor,
            action=action,
            target=target,
            address=address(),
            details=details,
            previous_hash=head.hash,
        )
        entry.hash = hash_of(entry)
        entry.save(force_insert=True)
        AuditHead.objects.filter(pk=organization_id).update(sequence=entry.sequence, hash=entry.hash)


def hold(organization_id: UUID) -> Any:
    """The end of an organization's log, and `now`: until the caller's transaction ends nobody else appends to it."""
    AuditHead.objects.bulk_create([AuditHead(organization_id=organization_id, hash=BEGINNING)], ignore_conflicts=True)
    return AuditHead.objects.select_for_update().annotate(now=ServerClock()).get(pk=organization_id)


def named(user: User | None) -> str:
    """As the log has somebody who may have no account."""
    return f"user:{user.pk}" if user else "nobody"


def hash_of(entry: AuditEntry) -> str:
    """SHA-256 of all that the entry says, and of the hash before it."""
    content = [
        entry.previous_hash,
        str(entry.organization_id),
        entry.sequence,
        entry.at.astimezone(UTC).isoformat(),
        entry.actor,
        entry.action,
        entry.target,
        entry.address,
        entry.details,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Flaw:
    """Where a log is not what was written."""

    organization_id: UUID
    sequence: int
    what: str

    def __str__(self) -> str:
        return f"organization {self.organization_id}, entry {self.sequence}: {self.what}"


def organizations() -> list[UUID]:
    """All that have a log, or should have one."""
    heads = AuditHead.objects.values_list("organization_id")
    return [row[0] for row in heads.union(AuditEntry.objects.order_by().values_list("organization_id"))]


def verify(organization_id: UUID) -> Iterator[Flaw]:
    """What is wrong with an organization's log: entries that were changed, are missing, or have changed places."""
    head = AuditHead.objects.filter(pk=organization_id).first()  # first: what is appended meanwhile lies beyond it
    entries = AuditEntry.objects.filter(organization_id=organization_id)
    if head is not None:
        entries = entries.filter(sequence__lte=head.sequence)
    sequence, previous = 0, BEGINNING
    for entry in entries.order_by("sequence").iterator(PAGE):
        if entry.sequence > sequence + 1:
            last = entry.sequence - 1
            yield Flaw(
                organization_id, sequence + 1, "is missing" if last == sequence + 1 else f"to {last} are missing"
            )
        if hash_of(entry) != entry.hash:
            yield Flaw(organization_id, entry.sequence, "was changed")
        elif entry.sequence == sequence + 1 and entry.previous_hash != previous:
            yield Flaw(organization_id, entry.sequence, "does not follow the one before it: one of them was put here")
        sequence, previous = entry.sequence, entry.hash
    if head is None:
        yield Flaw(organization_id, sequence, "has no head to end at")
    elif head.sequence > sequence:
        yield Flaw(organization_id, head.sequence, f"is missing, with all after entry {sequence}")
    elif (head.sequence, head.hash) != (sequence, previous):
        yield Flaw(organization_id, sequence, "is not the one that was written last")
    if head is not None and (beyond := _beyond(head)) is not None:
        yield Flaw(organization_id, beyond, "lies beyond the end of the log: it was put here, or the end put back")


def _beyond(head: AuditHead) -> int | None:
    """The first entry after the end, unless it was appended meanwhile: then the end has moved."""
    entries = AuditEntry.objects.filter(organization_id=head.pk, sequence__gt=head.sequence).order_by("sequence")
    first = entries.values_list("sequence", flat=True).first()
    has_moved = not AuditHead.objects.filter(pk=head.pk, sequence=head.sequence).exists()  # looked at second
    return None if has_moved else first
