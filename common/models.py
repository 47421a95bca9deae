"""The outbox's table. outbox.py says what goes into it, and what takes it out."""

from __future__ import annotations

from datetime import timedelta
from typing import Self
from uuid import uuid4

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

VISIBILITY = timedelta(minutes=2)  # longer than a server that answers each command just in time can hold up one mail
LIFETIME = timedelta(days=3)
SUBJECT_LIMIT = 250
ERROR_LIMIT = 500


class OutboxKind(models.TextChoices):
    MAIL = "MAIL"


class OutboxState(models.TextChoices):
    WAITING = "WAITING"
    POSTPONED = "POSTPONED"
    SENT = "SENT"
    FAILED = "FAILED"


class OutboxQuerySet(models.QuerySet["OutboxMessage"]):
    """Each transition is one compare-and-set UPDATE, by PostgreSQL's clock; what was sent stays sent."""

    def unsent(self) -> Self:
        return self.filter(sent_at=None)

    def pending(self) -> Self:
        """Those that somebody will yet try to send."""
        return self.unsent().filter(failed_at=None)

    def due(self) -> Self:
        return self.pending().filter(due_at__lte=Now())

    def in_state(self, state: OutboxState) -> Self:
        return {
            OutboxState.WAITING: self.pending().filter(last_error=""),
            OutboxState.POSTPONED: self.pending().exclude(last_error=""),
            OutboxState.SENT: self.exclude(sent_at=None),
            OutboxState.FAILED: self.unsent().exclude(failed_at=None),
        }[state]

    def ended_before(self, age: timedelta) -> Self:
        return self.filter(Q(sent_at__lt=Now() - age) | Q(failed_at__lt=Now() - age))

    def in_hand(self, message: OutboxMessage) -> Self:
        """The message, unless whoever took it was so slow that another has taken it since."""
        return self.pending().filter(pk=message.pk, attempts=message.attempts)

    def take(self, kind: OutboxKind) -> OutboxMessage | None:
        """The message that has been due for longest, in no other hands for VISIBILITY from the commit on."""
        due = self.due().filter(kind=kind).order_by("due_at").select_for_update(skip_locked=True)
        message = due.first()
        if message is not None:
            self.filter(pk=message.pk).update(due_at=Now() + VISIBILITY, attempts=F("attempts") + 1)
            message.attempts += 1
        return message

    def sent(self) -> int:
        """Note that they were. What they said is not kept: some bring tokens, which are stored nowhere else as they are."""
        return self.unsent().update(sent_at=Now(), failed_at=None, last_error="", body="")

    def postpone(self, delay: timedelta, error: str) -> int:
        """Have the messages tried again after `delay`."""
        return self.pending().update(due_at=Now() + delay, last_error=error)

    def give_up(self, error: str) -> int:
        """Fail those that are older than LIFETIME."""
        return self.filter(created_at__lt=Now() - LIFETIME).fail(error)

    def fail(self, error: str) -> int:
        return self.pending().update(failed_at=Now(), last_error=error)

    def send_again(self) -> int:
        """Make failed and postponed messages due at once."""
        return self.unsent().exclude(last_error="").update(failed_at=None, due_at=Now())


class OutboxMessage(models.Model):
    """An effect outside the database that was committed with its cause: one for each (event, recipient)."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    kind = models.CharField(max_length=10, choices=OutboxKind.choices, default=OutboxKind.MAIL)
    organization = models.ForeignKey("accounts.Organization", null=True, on_delete=models.CASCADE, related_name="+")
    event = models.CharField(max_length=200, help_text="What it tells of, such as training-run/<id>/FAILED.")
    recipient = models.CharField(max_length=254)
    subject = models.CharField(max_length=SUBJECT_LIMIT)
    body = models.TextField()
    created_at = models.DateTimeField(db_default=Now())
    due_at = models.DateTimeField(db_default=Now(), help_text="Not tried before.")
    attempts = models.PositiveIntegerField(default=0)
    sent_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True, help_text="Since when it is not tried any more.")
    last_error = models.CharField(max_length=ERROR_LIMIT, blank=True, default="")

    objects = OutboxQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["event", "recipient"], name="outbox_once")]
        indexes = [models.Index(fields=["due_at"], condition=Q(sent_at=None, failed_at=None), name="outbox_pending")]

    def __str__(self) -> str:
        return f"{self.event} to {self.recipient}"

    @property
    def state(self) -> OutboxState:
        if self.sent_at is not None:
            return OutboxState.SENT
        if self.failed_at is not None:
            return OutboxState.FAILED
        return OutboxState.POSTPONED if self.last_error else OutboxState.WAITING
