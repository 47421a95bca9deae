"""Operators see what became of each mail, and have it tried again; its text is not theirs to read."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse

from accounts.models import User
from common.models import OutboxMessage, OutboxState
from common.tenancy import operator
from tests.cast import PASSWORD

LIST = "admin:common_outboxmessage_changelist"
STATES: dict[OutboxState, dict[str, Any]] = {
    OutboxState.WAITING: {},
    OutboxState.POSTPONED: {"attempts": 3, "last_error": "451 later"},
    OutboxState.SENT: {"attempts": 1, "sent_at": Now()},
    OutboxState.FAILED: {"attempts": 1, "failed_at": Now(), "last_error": "550 no"},
}


@pytest.fixture
def messages(db: None) -> dict[OutboxState, OutboxMessage]:
    with operator():
        return {
            state: OutboxMessage.objects.create(
                event="hello", recipient=f"{state}@example.com", subject="S", body="a token", **fields
            )
            for state, fields in STATES.items()
        }


@pytest.fixture
def operations(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("ops@example.com", PASSWORD))
    return client


def send_all_again(client: Client, messages: dict[OutboxState, OutboxMessage]) -> None:
    chosen = [str(message.pk) for message in messages.values()]
    client.post(reverse(LIST), {"action": "send_again", "_selected_action": chosen})


def states(messages: dict[OutboxState, OutboxMessage]) -> dict[str, OutboxState]:
    with operator():
        return {each.recipient: each.state for each in OutboxMessage.objects.all()}


@pytest.mark.parametrize("state", OutboxState)
def test_the_list_can_be_filtered_by_state(
    operations: Client, messages: dict[OutboxState, OutboxMessage], state: OutboxState
) -> None:
    page = operations.get(reverse(LIST), {"state": state.value})
    assert [message.recipient for message in page.context["cl"].result_list] == [f"{state}@example.com"]
    assert messages[state].event in page.content.decode()


def test_the_list_says_when_each_was_sent_given_up_or_is_tried_again(
    operations: Client, messages: dict[OutboxState, OutboxMessage]
) -> None:
    with operator():
        waiting = OutboxMessage.objects.filter(
            pk__in=[messages[OutboxState.WAITING].pk, messages[OutboxState.POSTPONED].pk]
        )
        waiting.update(due_at="2100-01-01T00:00:01Z")
        OutboxMessage.objects.exclude(sent_at=None).update(sent_at="2026-01-02T03:04:05Z")
        OutboxMessage.objects.exclude(failed_at=None).update(failed_at="2026-02-03T04:05:06Z")
    html = operations.get(reverse(LIST)).content.decode()
    nbsp = "\N{NO-BREAK SPACE}"
    assert html.count(f"next try 2100-01-01 00:00:01{nbsp}UTC") == 2
    assert f"2026-01-02 03:04:05{nbsp}UTC" in html and f"2026-02-03 04:05:06{nbsp}UTC" in html


def test_failed_and_postponed_mails_are_tried_again_and_no_others(
    operations: Client, messages: dict[OutboxState, OutboxMessage]
) -> None:
    with operator():
        OutboxMessage.objects.update(due_at="2100-01-01T00:00Z")
    send_all_again(operations, messages)
    with operator():
        due = OutboxMessage.objects.due().values_list("recipient", flat=True)
        assert sorted(due) == ["FAILED@example.com", "POSTPONED@example.com"]


def test_who_may_only_look_has_no_such_action(client: Client, messages: dict[OutboxState, OutboxMessage]) -> None:
    looker = User.objects.create_user("looker@example.com", PASSWORD, is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_outboxmessage"))
    client.force_login(looker)
    assert client.get(reverse(LIST)).status_code == 200
    before = states(messages)
    send_all_again(client, messages)
    assert states(messages) == before


def test_the_text_is_not_shown(operations: Client, messages: dict[OutboxState, OutboxMessage]) -> None:
    for message in messages.values():
        page = operations.get(reverse("admin:common_outboxmessage_change", args=[message.pk])).content.decode()
        assert message.recipient in page and "a token" not in page


@pytest.mark.parametrize("lookup", ["body", "body__contains", "body__regex"])
def test_the_text_is_not_found_out_by_a_filter_either(
    operations: Client, messages: dict[OutboxState, OutboxMessage], lookup: str
) -> None:
    """It may hold the token that sets a superuser's password."""
    assert operations.get(reverse(LIST), {lookup: "a token"}).status_code == 400
    assert operations.get(reverse(LIST), {"subject": "S", "state": "SENT"}).status_code == 200
