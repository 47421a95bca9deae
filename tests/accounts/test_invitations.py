"""Invitations that nobody has accepted yet are listed to those who may invite, and withdrawn."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.actions import keys, organizations
from accounts.models import AuditEntry, Invitation, Role
from common.errors import Invalid
from common.tenancy import operator, tenant
from tests.accounts.mailbox import mails_to, token_in
from tests.cast import Person, make_person
from tests.rows import global_id

LIST = """query ($id: ID!) { organization(id: $id) {
  invitations { id email role createdAt expiresAt invitedBy { name } } } }"""
WITHDRAW = """mutation ($id: ID!) { answer: withdrawInvitation(id: $id) {
  __typename ... on Done { ok } ... on OperationInfo { messages { kind code } } } }"""
NODE = "query ($id: ID!) { node(id: $id) { id } }"
DONE = {"__typename": "Done", "ok": True}


def refusal(code: str, kind: str) -> dict[str, Any]:
    return {"__typename": "OperationInfo", "messages": [{"kind": kind, "code": code}]}


def invite(person: Person, email: str, role: Role = Role.MEMBER) -> Invitation:
    with tenant(person.principal):
        organizations.invite_member(actor=person.principal, organization=person.organization, email=email, role=role)
        return Invitation.objects.get(email=email)


def listed(person: Person, organization: Any = None) -> list[dict[str, Any]]:
    return person.data(LIST, id=global_id(organization or person.organization))["organization"]["invitations"]


def emails() -> list[str]:
    with operator():
        return sorted(Invitation.objects.values_list("email", flat=True))


def test_who_may_invite_sees_who_was_invited(alice: Person) -> None:
    invitation = invite(alice, "x@example.com", Role.VIEWER)
    admin = make_person("Adam", alice.organization, Role.ADMIN)
    shown = {
        "id": global_id(invitation),
        "email": "x@example.com",
        "role": "VIEWER",
        "createdAt": invitation.created_at.isoformat(),
        "expiresAt": invitation.expires_at.isoformat(),
        "invitedBy": {"name": "Alice"},
    }
    assert listed(alice) == listed(admin) == [shown]
    assert alice.data(NODE, id=shown["id"])["node"] == {"id": shown["id"]}


def test_who_may_not_invite_sees_none(alice: Person, bob: Person, vera: Person, charlie: Person) -> None:
    one = global_id(invite(alice, "x@example.com"))
    invite(charlie, "y@example.com")
    for person in (bob, vera):
        assert listed(person) == []
        assert person.data(NODE, id=one)["node"] is None
        assert person.data(WITHDRAW, id=one)["answer"] == refusal("NOT_FOUND", "ERROR")
    assert charlie.data(WITHDRAW, id=one)["answer"] == refusal("NOT_FOUND", "ERROR")
    assert emails() == ["x@example.com", "y@example.com"]


def test_no_key_sees_one(alice: Person) -> None:
    one = global_id(invite(alice, "x@example.com"))
    with tenant(alice.principal):
        alice.token = keys.create_key(
            actor=alice.principal, organization=alice.organization, name="CI", role=Role.OWNER, expires_at=None
        ).secret
    assert listed(alice) == []
    assert alice.data(NODE, id=one)["node"] is None
    assert alice.data(WITHDRAW, id=one)["answer"] == refusal("NOT_FOUND", "ERROR")
    assert emails() == ["x@example.com"]


def test_each_organization_lists_its_own(alice: Person, charlie: Person) -> None:
    invite(alice, "x@example.com")
    invite(charlie, "y@example.com")
    assert [one["email"] for one in listed(charlie)] == ["y@example.com"]


def test_an_accepted_one_is_none_any_more(alice: Person) -> None:
    invitation = invite(alice, "x@example.com")
    with operator():
        Invitation.objects.update(accepted_at=timezone.now())
    assert listed(alice) == []
    assert alice.data(NODE, id=global_id(invitation))["node"] is None
    assert alice.data(WITHDRAW, id=global_id(invitation))["answer"] == refusal("NOT_FOUND", "ERROR")
    assert emails() == ["x@example.com"]


def test_a_withdrawn_one_makes_nobody_a_member(alice: Person, charlie: Person) -> None:
    invitation, _ = invite(alice, "charlie@example.com"), invite(alice, "x@example.com")
    assert alice.data(WITHDRAW, id=global_id(invitation))["answer"] == DONE
    assert emails() == ["x@example.com"]
    with pytest.raises(Invalid, match="not valid"):
        organizations.accept_invitation(actor=charlie.principal, token=token_in(mails_to("charlie@example.com")[0]))
    with operator():
        last = AuditEntry.objects.filter(organization_id=alice.organization.pk).latest("sequence")
    assert (last.action, last.actor, last.target) == (
        "invitation.withdraw",
        f"user:{alice.user.pk}",
        f"invitation:{invitation.pk}",
    )


def test_nobody_withdraws_what_they_could_not_give(alice: Person) -> None:
    admin = make_person("Adam", alice.organization, Role.ADMIN)
    above, fitting = invite(alice, "x@example.com", Role.OWNER), invite(alice, "y@example.com", Role.ADMIN)
    assert admin.data(WITHDRAW, id=global_id(above))["answer"] == refusal("NOT_ALLOWED", "PERMISSION")
    assert emails() == ["x@example.com", "y@example.com"]
    assert admin.data(WITHDRAW, id=global_id(fitting))["answer"] == DONE
    assert emails() == ["x@example.com"]


def test_the_list_costs_as_many_queries_for_30_as_for_3(alice: Person) -> None:
    counts = []
    for size in (3, 30):
        for number in range(size - len(emails())):
            invite(alice, f"{size}-{number}@example.com")
        with CaptureQueriesContext(connection) as queries:
            assert len(listed(alice)) == size
        counts.append(len(queries))
    assert counts[0] == counts[1]
