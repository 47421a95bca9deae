"""What becomes of accounts is in the platform's audit log: made, verified, and asked to be reset, with the address.

And who came into the admin, or did not.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts import audit
from accounts.models import AuditEntry, User
from common.tenancy import operator
from tests.accounts.mailbox import mails_to, token_in
from tests.cast import PASSWORD, Person
from tests.rows import global_id

pytestmark = pytest.mark.django_db

SIGN_UP = "mutation ($input: SignupInput!) { signup(input: $input) { __typename } }"
VERIFY = "mutation ($input: VerifyEmailInput!) { verifyEmail(input: $input) { __typename } }"
RESET = "mutation ($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { __typename } }"


def ask(document: str, **input: str) -> str:
    client = Client(REMOTE_ADDR="192.0.2.9")
    asked = {"query": document, "variables": {"input": input}}
    answer = client.post("/graphql", asked, content_type="application/json").json()
    return next(iter(answer["data"].values()))["__typename"]


def log() -> list[tuple[str, str, str, str]]:
    with operator():
        entries = AuditEntry.objects.filter(organization_id=audit.PLATFORM).order_by("sequence")
        return list(entries.values_list("action", "actor", "target", "address"))


@pytest.mark.parametrize("required", [False, True])
def test_a_sign_up_and_a_verification(settings: Any, required: bool) -> None:
    settings.REQUIRE_VERIFIED_EMAIL = required
    assert ask(SIGN_UP, email="ada@example.com", password=PASSWORD) == ("Done" if required else "Session")
    assert ask(VERIFY, token=token_in(mails_to("ada@example.com")[0])) == "Done"
    assert ask(VERIFY, token="unknown") == "OperationInfo"
    hers = f"user:{User.objects.get().pk}"
    assert log() == [("account.create", hers, "", "192.0.2.9"), ("account.verify", hers, "", "192.0.2.9")]


@pytest.mark.parametrize("required", [False, True])
def test_a_sign_up_with_a_known_address_makes_no_account(alice: Person, settings: Any, required: bool) -> None:
    settings.REQUIRE_VERIFIED_EMAIL = required
    assert ask(SIGN_UP, email="alice@example.com", password=PASSWORD) == ("Done" if required else "OperationInfo")
    assert log() == []


def test_a_request_to_reset_a_password(alice: Person) -> None:
    for address in ("alice@example.com", "nobody@example.com"):
        assert ask(RESET, email=address) == "Done"
    assert log() == [
        ("password.request_reset", "nobody", f"user:{alice.user.pk}", "192.0.2.9"),
        ("password.request_reset", "nobody", "nobody", "192.0.2.9"),
    ]


def test_an_operator_who_comes_in_and_whoever_is_refused(alice: Person) -> None:
    root = User.objects.create_superuser("root@example.com", PASSWORD)
    client = Client(REMOTE_ADDR="192.0.2.9")
    for name, password in [
        ("root@example.com", "wrong"),
        ("nobody@example.com", PASSWORD),
        ("alice@example.com", PASSWORD),  # who is no operator
        ("Root@Example.com", PASSWORD),
    ]:
        client.post("/admin/login/", {"username": name, "password": password})
    assert client.get("/admin/").status_code == 200
    assert log() == [
        ("session.refuse", "nobody", f"user:{root.pk}", "192.0.2.9"),
        ("session.refuse", "nobody", "nobody", "192.0.2.9"),
        ("session.refuse", "nobody", f"user:{alice.user.pk}", "192.0.2.9"),
        ("session.begin", f"user:{root.pk}", "", "192.0.2.9"),
    ]


def test_whoever_does_not_know_the_password_that_is_asked_for_once_more(alice: Person) -> None:
    change = "mutation ($input: ChangePasswordInput!) { changePassword(input: $input) { __typename } }"
    account = "mutation ($input: DeleteAccountInput!) { deleteAccount(input: $input) { __typename } }"
    organization = "mutation ($input: DeleteOrganizationInput!) { deleteOrganization(input: $input) { __typename } }"
    hers, new = f"user:{alice.user.pk}", "another long password"
    for document, given in [
        (change, {"currentPassword": "wrong", "newPassword": new}),
        (account, {"password": "wrong"}),
        (organization, {"password": "wrong", "organizationId": global_id(alice.organization)}),
    ]:
        (answer,) = alice.data(document, input=given).values()
        assert answer == {"__typename": "OperationInfo"}
    assert [entry[:3] for entry in log()] == [("password.refuse", hers, "")] * 2
    with operator():
        of_hers = AuditEntry.objects.filter(organization_id=alice.organization.pk)
        assert list(of_hers.values_list("action", "actor")) == [("password.refuse", hers)]
        assert list(audit.verify(alice.organization.pk)) == list(audit.verify(audit.PLATFORM)) == []
