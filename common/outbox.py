"""The outbox: mail that is committed with its cause. drain.py sends it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.template import Context, Engine

from common.models import SUBJECT_LIMIT, OutboxMessage
from common.tenancy import operator
from common.text import one_line

KEPT_FOR = timedelta(days=30)


def mail(
    *, event: str, recipient: str, template: str, context: Mapping[str, Any], organization_id: UUID | None
) -> None:
    """Queue a mail in the caller's transaction, worded now from templates/mail/<template>.txt; its first line is the subject.

    A second one of the same event to the same recipient is none.
    """
    assert connection.in_atomic_block, "a mail is committed with its cause"
    text = Engine.get_default().get_template(f"mail/{template}.txt")
    worded = text.render(Context({"public_url": settings.PUBLIC_URL, **context}, autoescape=False))
    subject, _, body = worded.partition("\n")
    message = OutboxMessage(
        event=event,
        recipient=recipient,
        subject=one_line(subject, SUBJECT_LIMIT),
        body=body.strip() + "\n",
        organization_id=organization_id,
    )
    # nothing is asked back: platform_app may insert here, and not read
    OutboxMessage.objects.bulk_create([message], ignore_conflicts=True)


def remove_ended() -> int:
    """Remove messages that were sent, or given up, more than 30 days ago; return how many."""
    with operator():
        return OutboxMessage.objects.ended_before(KEPT_FOR).delete()[0]
