"""Rows of the outbox for tests, and a mail server for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.models.functions import Now
from django.utils import timezone

from common.models import OutboxMessage, OutboxState
from common.tenancy import operator
from tests.mail import MailServer, mail_server


@contextmanager
def outbox_server(settings: Any) -> Iterator[MailServer]:
    """A mail server that `settings` name for the block."""
    with mail_server() as server:
        for name, value in server.settings.items():
            setattr(settings, name, value)
        settings.DEFAULT_FROM_EMAIL = "Platform <platform@example.com>"
        yield server


def put(*recipients: str) -> list[OutboxMessage]:
    with operator():
        return [
            OutboxMessage.objects.create(event="hello", recipient=recipient, subject="Hello", body="You.\n")
            for recipient in recipients
        ]


def get(message: OutboxMessage) -> OutboxMessage:
    with operator():
        return OutboxMessage.objects.get(pk=message.pk)


def states() -> dict[str, OutboxState]:
    with operator():
        return {message.recipient: message.state for message in OutboxMessage.objects.all()}


def make_due() -> None:
    """As if the time had passed."""
    with operator():
        OutboxMessage.objects.pending().update(due_at=Now())


def recipients(server: MailServer) -> list[str]:
    return [received.recipient for received in server.received]


def in_s(message: OutboxMessage) -> float:
    """How far off the message's next try is."""
    return (message.due_at - timezone.now()).total_seconds()
