"""A mail is committed with its cause: once, as it was true then, and for nobody else's eyes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import ProgrammingError, transaction
from django.db.models.functions import Now

from common.models import OutboxMessage, OutboxState
from common.outbox import mail, remove_ended
from common.tenancy import operator, tenant
from tests.cast import make_person

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def template(settings: Any, tmp_path: Path) -> None:
    """templates/mail/hello.txt of this test's own."""
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "hello.txt").write_text("Hello {{ name }}\nYou are {{ name }}, at {{ public_url }}.\n\n")
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]


def hello(event: str = "hello/1", name: str = "Bob", organization_id: UUID | None = None) -> None:
    mail(
        event=event,
        recipient="bob@example.com",
        template="hello",
        context={"name": name},
        organization_id=organization_id,
    )


def messages() -> list[OutboxMessage]:
    with operator():
        return list(OutboxMessage.objects.order_by("created_at"))


def test_a_mail_is_worded_when_it_is_queued(settings: Any) -> None:
    settings.PUBLIC_URL = "https://platform.example.com"
    with operator():
        hello(name="Zoë & <Co>")
    (message,) = messages()
    assert (message.subject, message.body) == (
        "Hello Zoë & <Co>",
        "You are Zoë & <Co>, at https://platform.example.com.\n",
    )
    assert (message.recipient, message.state, message.attempts) == ("bob@example.com", OutboxState.WAITING, 0)
    assert message.due_at == message.created_at


def test_a_cause_that_happens_twice_is_one_mail() -> None:
    alice = make_person("Alice")
    with tenant(alice.principal):
        hello(organization_id=alice.organization.pk)
        hello(name="another", organization_id=alice.organization.pk)
    with operator():
        hello(name="a third")
        hello("hello/2")
    assert [(message.event, message.subject) for message in messages()] == [
        ("hello/1", "Hello Bob"),
        ("hello/2", "Hello Bob"),
    ]


def test_a_cause_that_is_rolled_back_is_no_mail() -> None:
    def cause() -> None:
        with operator():
            hello()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cause()
    assert messages() == []


def test_a_mail_without_a_transaction_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="committed with its cause"):
        hello()
    assert messages() == []


def test_a_mail_of_no_organization_needs_no_scope() -> None:
    with transaction.atomic():
        hello()
    assert [message.organization_id for message in messages()] == [None]


def test_a_tenant_puts_in_its_own_mails_and_sees_or_changes_none() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    with tenant(alice.principal):
        hello(organization_id=alice.organization.pk)
    everything = OutboxMessage.objects.all()
    forbidden = [
        ("permission denied", lambda: list(everything)),
        ("permission denied", lambda: everything.update(recipient="mallory@example.com")),
        ("permission denied", lambda: everything.delete()),
        ("row-level security", lambda: hello("hello/2", organization_id=charlie.organization.pk)),
    ]
    for refusal, attempt in forbidden:
        with pytest.raises(ProgrammingError, match=refusal), tenant(alice.principal):
            attempt()
    assert [(message.event, message.recipient) for message in messages()] == [("hello/1", "bob@example.com")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028"])
def test_a_name_ends_no_header(end: str) -> None:
    with operator():
        hello(name=f"Eve{end}Bcc: everybody@example.com")
    (message,) = messages()
    assert message.subject.splitlines() == [message.subject]
    assert message.subject.startswith("Hello Eve")


def test_a_subject_has_an_end() -> None:
    with operator():
        hello(name="x" * 1000)
    (message,) = messages()
    assert message.subject == "Hello " + "x" * 244


def test_deleting_an_organization_removes_its_mails() -> None:
    alice = make_person("Alice")
    with operator():
        hello(organization_id=alice.organization.pk)
        hello("hello/2")
        alice.organization.delete()
    assert [message.event for message in messages()] == ["hello/2"]


def test_what_ended_30_days_ago_is_removed() -> None:
    ends = {"sent/31": "sent_at", "failed/31": "failed_at", "sent/29": "sent_at", "failed/29": "failed_at"}
    with operator():
        hello("pending/31")
        for event, end in ends.items():
            hello(event)
            days = int(event.partition("/")[2])
            OutboxMessage.objects.filter(event=event).update(**{end: Now() - timedelta(days=days)})
        OutboxMessage.objects.update(created_at=Now() - timedelta(days=31))
    assert remove_ended() == 2
    assert {message.event for message in messages()} == {"pending/31", "sent/29", "failed/29"}
