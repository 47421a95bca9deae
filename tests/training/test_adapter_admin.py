"""Operators promote and archive adapters by the same verbs as members, and see what an adapter was made of."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEntry, User
from common.tenancy import operator
from tests.cast import PASSWORD, Person
from tests.rows import make_adapter, make_run, make_version
from training.models import Adapter

LIST = "/admin/training/adapter/"


@pytest.fixture
def admin(db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root@example.com", PASSWORD))
    return client


def press(admin: Client, button: str, *adapters: Adapter) -> list[str]:
    """Press a button and say yes; returns what is said then."""
    chosen = {"action": button, "confirmed": "yes", "_selected_action": [str(each.pk) for each in adapters]}
    answer = admin.post(LIST, chosen, follow=True)
    return [str(message) for message in answer.context["messages"]]


def stages() -> dict[str, str]:
    with operator():
        return {str(each): each.stage for each in Adapter.objects.all()}


@pytest.fixture
def worse(bob: Person) -> Adapter:
    make_adapter(bob, digest="a" * 64, stage="PRODUCTION")
    return make_adapter(
        bob, digest="b" * 64, test_loss=1.5, production_digest="a" * 64, production_test_loss=1.25, size_bytes=3
    )


def test_an_operator_promotes_by_what_was_measured_or_whatever_it_was(admin: Client, worse: Adapter) -> None:
    (said,) = press(admin, "promote", worse)
    assert said.startswith("First:2: First:2 is worse than First:1, which is in production: test loss 1.5 against 1.25")
    assert stages() == {"First:1": "PRODUCTION", "First:2": "CANDIDATE"}
    with operator():
        assert not AuditEntry.objects.exists()
    assert press(admin, "promote_anyway", worse) == ["First:2: in production."]
    assert stages() == {"First:1": "CANDIDATE", "First:2": "PRODUCTION"}
    with operator():
        entry = AuditEntry.objects.get()
        root = User.objects.get(email="root@example.com")
    assert (entry.actor, entry.action, entry.target) == (f"user:{root.pk}", "adapter.promote", f"adapter:{worse.pk}")
    assert (entry.organization_id, entry.details["forced"]) == (worse.organization_id, 1)


def test_of_several_each_is_archived_by_itself(admin: Client, bob: Person, worse: Adapter) -> None:
    with operator():
        first = Adapter.objects.get(stage="PRODUCTION")
    assert press(admin, "archive", first, worse) == [
        "First:1: First:1 is in production: promote another adapter of this name first, then archive this one.",
        "First:2: archived.",
    ]
    assert stages() == {"First:1": "PRODUCTION", "First:2": "ARCHIVED"}


@pytest.mark.parametrize("button", ["promote", "promote_anyway", "archive"])
def test_a_button_asks_first(admin: Client, worse: Adapter, button: str) -> None:
    before = stages()
    answer = admin.post(LIST, {"action": button, "_selected_action": [str(worse.pk)]})
    assert answer.status_code == 200 and "Are you sure?" in answer.content.decode()
    assert "<li>First:2 · " in answer.content.decode() and str(worse.pk) in answer.content.decode()
    assert stages() == before


def test_staff_who_may_only_look_have_no_buttons(client: Client, worse: Adapter) -> None:
    from django.contrib.auth.models import Permission

    staff = User.objects.create_user("staff@example.com", PASSWORD, is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_adapter"))
    client.force_login(staff)
    assert "promote_anyway" not in client.get(LIST).content.decode()
    press(client, "promote_anyway", worse)
    assert stages() == {"First:1": "PRODUCTION", "First:2": "CANDIDATE"}


def listed(admin: Client, **query: str) -> list[str]:
    answer = admin.get(LIST, query)
    assert answer.status_code == 200
    return sorted(str(row) for row in answer.context["cl"].result_list)


def test_adapters_are_filtered_by_their_stage_and_found_by_what_one_has(admin: Client, worse: Adapter) -> None:
    assert listed(admin, stage__exact="PRODUCTION") == ["First:1"]
    assert listed(admin, stage__exact="ARCHIVED") == []
    assert listed(admin, q="b" * 64) == listed(admin, q=f"adapter:{worse.pk}") == ["First:2"]
    page = admin.get(LIST).content.decode()
    assert "1.2500" in page and "1.5000" in page and "Candidate" in page


def test_its_page_says_what_it_was_made_of(admin: Client, bob: Person) -> None:
    result: dict[str, Any] = {"environment": {"torch": "2.9.0", "device": "the <CPU>"}}
    adapter = make_adapter(bob, make_run(bob, make_version(bob), result=result))
    page = admin.get(reverse("admin:training_adapter_change", args=[adapter.pk])).content.decode()
    for line in (
        "Base model: platform/python-small, revision 1",
        f"Data: Snippets, version 1, fingerprint {'f' * 64}",
        "Seed: 17",
        "torch: 2.9.0",
        "device: the &lt;CPU&gt;",
    ):
        assert f"<div>{line}</div>" in page
    alone = make_adapter(bob, make_run(bob), training_run=None)
    page = admin.get(reverse("admin:training_adapter_change", args=[alone.pk])).content.decode()
    assert "<div>Base model: platform/python-small, revision 1</div>" in page and "<div>Data" not in page
