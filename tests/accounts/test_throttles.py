"""What can be guessed, or annoys, is tried so often and no more; where nobody can count, not at all."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from accounts.models import AuditEntry, Invitation, RefreshToken, User
from common.models import OutboxMessage
from common.tenancy import operator
from tests.cast import PASSWORD, Person, make_person
from tests.rows import global_id

INFO = "__typename ... on OperationInfo { messages { code } }"
LOGIN = f"mutation ($email: String!, $password: String!) {{ login(input: {{email: $email, password: $password}}) {{ {INFO} }} }}"
SIGNUP = f'mutation ($email: String!) {{ signup(input: {{email: $email, password: "{PASSWORD}"}}) {{ {INFO} }} }}'
RESET = f"mutation ($email: String!) {{ requestPasswordReset(input: {{email: $email}}) {{ {INFO} }} }}"
VERIFY = f'mutation {{ verifyEmail(input: {{token: "guessed"}}) {{ {INFO} }} }}'
USE_RESET = f'mutation {{ resetPassword(input: {{token: "guessed", newPassword: "{PASSWORD}"}}) {{ {INFO} }} }}'
CHANGE = f'mutation {{ changePassword(input: {{currentPassword: "wrong", newPassword: "{PASSWORD}"}}) {{ {INFO} }} }}'
JOIN = f'mutation {{ acceptInvitation(input: {{token: "guessed"}}) {{ {INFO} }} }}'
INVITE = f"""mutation ($organization: ID!, $email: String!) {{
  inviteMember(input: {{organizationId: $organization, email: $email}}) {{ {INFO} }}
}}"""
LOGOUT = f'mutation {{ logout(input: {{refreshToken: "none"}}) {{ {INFO} }} }}'
TOO_MANY = "TOO_MANY_ATTEMPTS"


@pytest.fixture
def ada(db: None) -> Person:
    """Somebody whose address nobody has tried before."""
    return make_person(f"ada-{uuid4().hex}")


@pytest.fixture
def place() -> str:
    """A network address that nobody has tried from before."""
    return somewhere()


def somewhere() -> str:
    number = uuid4().hex
    return f"2001:db8:{number[:4]}:{number[4:8]}::1"


def post(document: str, place: str, token: str | None = None, **variables: Any) -> Any:
    return Client(REMOTE_ADDR=place).post(
        "/graphql",
        json.dumps({"query": document, "variables": variables}),
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )


def outcomes(response: Any) -> list[str]:
    """What became of each field: its type, or the code of its refusal."""
    fields = response.json()["data"].values()
    return [field["messages"][0]["code"] if "messages" in field else field["__typename"] for field in fields]


def outcome(document: str, place: str, token: str | None = None, **variables: Any) -> str:
    (only,) = outcomes(post(document, place, token, **variables))
    return only


def test_a_password_is_tried_so_often_and_then_even_the_right_one_waits(ada: Person, place: str, settings: Any) -> None:
    settings.LOGINS_PER_ACCOUNT = 3
    assert [outcome(LOGIN, place, email=ada.user.email, password="wrong") for _ in range(3)] == [
        "WRONG_CREDENTIALS"
    ] * 3
    with operator():
        sessions, entries = RefreshToken.objects.count(), AuditEntry.objects.count()
    typed = f" {ada.user.email.upper()} "
    refused = post(LOGIN, place, email=typed, password=PASSWORD)
    assert (refused.status_code, outcomes(refused)) == (429, [TOO_MANY])
    assert 1 <= int(refused.headers["Retry-After"]) <= 900
    assert outcome(LOGIN, somewhere(), email=ada.user.email, password=PASSWORD) == TOO_MANY, "from anywhere"
    with operator():
        assert (RefreshToken.objects.count(), AuditEntry.objects.count()) == (sessions, entries), "nothing is written"


def test_known_and_unknown_accounts_are_refused_alike(ada: Person, place: str, settings: Any) -> None:
    settings.LOGINS_PER_ACCOUNT = 2
    unknown = f"nobody-{uuid4().hex}@example.com"

    def answers(email: str) -> list[str]:
        tried = [post(LOGIN, place, email=email, password="wrong") for _ in range(4)]
        return [re.sub(r"in \d+ seconds", "in N seconds", answer.content.decode()) for answer in tried]

    assert answers(ada.user.email) == answers(unknown)


def test_an_address_of_the_network_tries_so_often_whatever_it_tries(ada: Person, place: str, settings: Any) -> None:
    settings.ATTEMPTS_PER_ADDRESS = 5
    tried = [outcome(LOGIN, place, email=f"{uuid4().hex}@example.com", password="wrong") for _ in range(2)]
    tried += [outcome(VERIFY, place), outcome(USE_RESET, place), outcome(JOIN, place, ada.token)]
    assert tried == ["WRONG_CREDENTIALS"] * 2 + ["INVALID_TOKEN"] * 3
    for document in (VERIFY, USE_RESET):
        assert outcome(document, place) == TOO_MANY
    assert outcome(JOIN, place, ada.token) == TOO_MANY
    assert outcome(CHANGE, place, ada.token) == TOO_MANY
    assert outcome(RESET, place, email=ada.user.email) == TOO_MANY
    settings.LOGINS_PER_ACCOUNT = 1
    assert outcome(LOGIN, place, email=ada.user.email, password="wrong") == TOO_MANY
    assert outcome(LOGIN, somewhere(), email=ada.user.email, password=PASSWORD) == "Session", "it has locked nobody out"


def test_all_addresses_that_a_customer_has_are_one(db: None, place: str, settings: Any) -> None:
    settings.ATTEMPTS_PER_ADDRESS = 3
    neighbours = [place, f"{place[:-1]}1:2:3", f"{place.upper()}%zone"]
    assert [outcome(VERIFY, neighbour) for neighbour in neighbours] == ["INVALID_TOKEN"] * 3
    assert outcome(VERIFY, f"{place[:-1]}2") == TOO_MANY
    assert outcome(VERIFY, somewhere()) == "INVALID_TOKEN"


def test_an_address_is_counted_however_it_is_spelled(db: None, quiet_queues: None, settings: Any) -> None:
    settings.ATTEMPTS_PER_ADDRESS = 2
    spellings = ["198.51.100.7", "::ffff:198.51.100.7", "::FFFF:c633:6407"]
    assert [outcome(VERIFY, spelling) for spelling in spellings] == ["INVALID_TOKEN", "INVALID_TOKEN", TOO_MANY]


def test_whom_no_proxy_names_is_counted_too(db: None, quiet_queues: None, settings: Any) -> None:
    settings.ATTEMPTS_PER_ADDRESS = 2
    assert [outcome(VERIFY, name) for name in ("", "unknown", "-")] == ["INVALID_TOKEN", "INVALID_TOKEN", TOO_MANY]


def test_each_operation_of_a_document_is_an_attempt(ada: Person, place: str, settings: Any) -> None:
    settings.LOGINS_PER_ACCOUNT = 4
    field = f'login(input: {{email: "{ada.user.email}", password: "wrong"}}) {{ {INFO} }}'
    response = post("mutation {" + " ".join(f"a{n}: {field}" for n in range(10)) + "}", place)
    assert outcomes(response) == ["WRONG_CREDENTIALS"] * 4 + [TOO_MANY] * 6


def test_the_current_password_is_guessed_no_more_often_than_at_the_login(
    ada: Person, place: str, settings: Any
) -> None:
    settings.LOGINS_PER_ACCOUNT = 2
    tried = [outcome(CHANGE, place, ada.token) for _ in range(3)]
    assert tried == ["WRONG_CREDENTIALS", "WRONG_CREDENTIALS", TOO_MANY]
    assert outcome(LOGIN, place, email=ada.user.email, password=PASSWORD) == TOO_MANY


def test_an_address_of_the_network_makes_so_many_accounts(db: None, place: str, settings: Any) -> None:
    settings.SIGNUPS_PER_ADDRESS = 2
    emails = [f"{uuid4().hex}@example.com" for _ in range(3)]
    assert [outcome(SIGNUP, place, email=email) for email in emails] == ["Session", "Session", TOO_MANY]
    assert User.objects.filter(email__in=emails).count() == 2


def test_a_mailbox_gets_so_much_mail_that_it_did_not_ask_for(ada: Person, place: str, settings: Any) -> None:
    settings.MAILS_PER_MAILBOX = 2
    email, unknown = ada.user.email, f"{uuid4().hex}@example.com"
    assert [outcome(RESET, place, email=email) for _ in range(3)] == ["Done", "Done", TOO_MANY]
    assert [outcome(RESET, place, email=unknown) for _ in range(3)] == ["Done", "Done", TOO_MANY], "known or not"
    with operator():
        assert OutboxMessage.objects.filter(recipient=email).count() == 2
    settings.REQUIRE_VERIFIED_EMAIL = True
    assert outcome(SIGNUP, place, email=email) == TOO_MANY


def test_a_mailbox_is_one_however_its_domain_is_spelled(db: None, place: str, settings: Any) -> None:
    settings.MAILS_PER_MAILBOX = 2
    name = uuid4().hex
    spellings = [f"{name}@{domain}" for domain in ("example.com", "\uff45xample.com", "exam\u00adple.com")]
    assert [outcome(RESET, place, email=spelling) for spelling in spellings] == ["Done", "Done", TOO_MANY]


def test_an_organization_invites_so_many(ada: Person, place: str, settings: Any) -> None:
    settings.INVITATIONS_PER_ORGANIZATION = 2
    emails = [f"{uuid4().hex}@example.com" for _ in range(3)]
    organization = global_id(ada.organization)
    invited = [outcome(INVITE, place, ada.token, organization=organization, email=email) for email in emails]
    assert invited == ["Done", "Done", TOO_MANY]
    with operator():
        assert Invitation.objects.filter(organization=ada.organization).count() == 2


def test_operators_sign_in_at_the_same_rate(ada: Person, place: str, settings: Any) -> None:
    settings.LOGINS_PER_ACCOUNT = 2
    User.objects.filter(pk=ada.user.pk).update(is_staff=True, is_superuser=True)
    client = Client(REMOTE_ADDR=place)
    for _ in range(2):
        page = client.post("/admin/login/", {"username": ada.user.email, "password": "wrong"})
        assert b"The address or the password is not right" in page.content
    page = client.post("/admin/login/", {"username": ada.user.email, "password": PASSWORD})
    assert (page.status_code, b"Too many attempts" in page.content) == (200, True)
    settings.LOGINS_PER_ACCOUNT = 100
    assert client.post("/admin/login/", {"username": ada.user.email, "password": PASSWORD}).status_code == 302


@pytest.mark.parametrize("document", [LOGIN, SIGNUP, RESET, VERIFY, USE_RESET, CHANGE])
def test_where_nobody_can_count_nobody_may_try(ada: Person, place: str, settings: Any, document: str) -> None:
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    names = {
        name: value for name, value in (("email", ada.user.email), ("password", PASSWORD)) if f"${name}:" in document
    }
    with operator():
        sessions, mails = RefreshToken.objects.count(), OutboxMessage.objects.count()
    refused = post(document, place, ada.token if document == CHANGE else None, **names)
    assert (refused.status_code, outcomes(refused)) == (503, ["UNAVAILABLE"])
    assert refused.headers["Retry-After"] == "5"
    with operator():
        assert (RefreshToken.objects.count(), OutboxMessage.objects.count()) == (sessions, mails)


def test_whoever_is_signed_in_works_on_and_signs_out_without_redis(ada: Person, place: str, settings: Any) -> None:
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    assert post("{ me { email } }", place, ada.token).json() == {"data": {"me": {"email": ada.user.email}}}
    assert outcome(LOGOUT, place) == "Done"
