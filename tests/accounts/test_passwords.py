"""A password is changed by whoever knows it, and set anew by whoever reads the mail of the address."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from accounts import tokens
from accounts.actions import passwords
from accounts.credentials import WrongCredentials
from accounts.models import MailedToken, RefreshToken, User
from accounts.principals import principal_of
from common.errors import NotSignedIn
from common.models import OutboxMessage
from common.tenancy import Principal, operator
from tests.accounts.locks import in_another_thread
from tests.accounts.mailbox import mails_to, subjects_to, token_in
from tests.cast import PASSWORD, Person, make_person, session_of
from tests.processes import start_python

ALICE = "alice@example.com"
ANOTHER = "another long password"
MESSAGES = "__typename ... on OperationInfo { messages { kind code field message } }"
CHANGE = f"""
mutation ($current: String!, $new: String!) {{
  changePassword(input: {{currentPassword: $current, newPassword: $new}}) {{ {MESSAGES} ... on Done {{ ok }} }}
}}
"""
REQUEST = f"""
mutation ($email: String!) {{ requestPasswordReset(input: {{email: $email}}) {{ {MESSAGES} ... on Done {{ ok }} }} }}
"""
RESET = f"""
mutation ($token: String!, $new: String!) {{
  resetPassword(input: {{token: $token, newPassword: $new}}) {{ {MESSAGES} ... on Done {{ ok }} }}
}}
"""
DONE = {"__typename": "Done", "ok": True}

Ask = Callable[..., dict[str, Any]]


def outcome(answer: dict[str, Any]) -> Any:
    """Done, or the code and the field of a refusal."""
    (field,) = answer["data"].values()
    return field if field == DONE else [(one["code"], one["field"]) for one in field["messages"]]


def logs_in(password: str, address: str = ALICE) -> bool:
    return User.objects.get(email=address).check_password(password)


def is_live(session: tokens.IssuedSession) -> bool:
    try:
        return principal_of(session.access_token).user_id == session.user.pk
    except tokens.InvalidToken:
        return False


def requested_token(anonymous: Ask, address: str = ALICE) -> str:
    assert outcome(anonymous(REQUEST, email=address)) == DONE
    return token_in(mails_to(address.lower())[-1])


def revoked() -> int:
    with operator():
        return RefreshToken.objects.exclude(revoked_at=None).count()


def test_changing_it_ends_all_other_sessions(alice: Person, bob: Person) -> None:
    elsewhere, his = session_of(alice.user), session_of(bob.user)
    assert outcome(alice.ask(CHANGE, current=PASSWORD, new=ANOTHER)) == DONE
    assert (logs_in(ANOTHER), logs_in(PASSWORD)) == (True, False)
    assert not is_live(elsewhere)
    with pytest.raises(tokens.InvalidToken):
        tokens.rotate(elsewhere.refresh_token)
    assert alice.data("{ me { email } }") == {"me": {"email": ALICE}}
    assert is_live(his)
    assert tokens.rotate(his.refresh_token).user == bob.user


def test_a_changed_password_is_told_by_mail(alice: Person, settings: Any) -> None:
    alice.ask(CHANGE, current=PASSWORD, new=ANOTHER)
    (mail,) = mails_to(ALICE)
    assert mail.subject == "Your password was changed"
    assert f'requestPasswordReset(input: {{email: "{ALICE}"}})' in mail.body


def test_a_wrong_current_password_changes_nothing(alice: Person) -> None:
    elsewhere = session_of(alice.user)
    answer = alice.ask(CHANGE, current="not her password", new=ANOTHER)
    assert answer["data"]["changePassword"]["messages"] == [
        {
            "kind": "ERROR",
            "code": "WRONG_CREDENTIALS",
            "field": "currentPassword",
            "message": "The current password is not right.",
        }
    ]
    assert (logs_in(PASSWORD), is_live(elsewhere), subjects_to(ALICE)) == (True, True, [])


@pytest.mark.parametrize("weak", ["short", "password1234", ALICE, "a long enough \ud800", "a long enough \x00"])
def test_a_weak_password_changes_nothing(anonymous: Ask, alice: Person, weak: str) -> None:
    elsewhere = session_of(alice.user)
    assert outcome(alice.ask(CHANGE, current=PASSWORD, new=weak)) == [("WEAK_PASSWORD", "newPassword")]
    token = requested_token(anonymous)
    assert outcome(anonymous(RESET, token=token, new=weak)) == [("WEAK_PASSWORD", "newPassword")]
    assert (logs_in(PASSWORD), is_live(elsewhere)) == (True, True)
    assert outcome(anonymous(RESET, token=token, new=ANOTHER)) == DONE  # the token was not spent on it


def test_nobody_and_no_key_has_a_password(anonymous: Ask, alice: Person) -> None:
    assert outcome(anonymous(CHANGE, current=PASSWORD, new=ANOTHER)) == [("UNAUTHENTICATED", None)]
    key = Principal(user_id=None, key_id=uuid4(), roles=alice.principal.roles)
    with pytest.raises(NotSignedIn):
        passwords.change_password(actor=key, current_password=PASSWORD, new_password=ANOTHER)
    assert logs_in(PASSWORD)


def test_a_reset_ends_all_sessions_and_verifies_the_address(anonymous: Ask, alice: Person, bob: Person) -> None:
    hers, his = session_of(alice.user), session_of(bob.user)
    assert outcome(anonymous(RESET, token=requested_token(anonymous), new=ANOTHER)) == DONE
    assert (logs_in(ANOTHER), logs_in(PASSWORD)) == (True, False)
    assert User.objects.get(email=ALICE).email_verified
    assert not is_live(hers)
    assert "errors" in alice.ask("{ me { email } }")
    assert is_live(his)
    assert not User.objects.get(email="bob@example.com").email_verified
    assert subjects_to(ALICE) == ["Set another password", "Your password was changed"]


def test_a_reset_token_works_once(anonymous: Ask, alice: Person) -> None:
    token = requested_token(anonymous)
    anonymous(RESET, token=token, new=ANOTHER)
    assert outcome(anonymous(RESET, token=token, new="a third long password")) == [("INVALID_TOKEN", None)]
    assert logs_in(ANOTHER)


def test_a_reset_token_works_for_an_hour(anonymous: Ask, alice: Person) -> None:
    token = requested_token(anonymous)
    with operator():
        lifetime = MailedToken.objects.get().expires_at - timezone.now()
        assert timedelta(minutes=59) < lifetime <= timedelta(hours=1)
        MailedToken.objects.update(expires_at=timezone.now())
    assert outcome(anonymous(RESET, token=token, new=ANOTHER)) == [("INVALID_TOKEN", None)]
    assert (logs_in(PASSWORD), revoked()) == (True, 0)


def test_a_new_reset_token_voids_the_one_before(anonymous: Ask, alice: Person) -> None:
    first = requested_token(anonymous)
    second = requested_token(anonymous, ALICE.upper())
    assert outcome(anonymous(RESET, token=first, new=ANOTHER)) == [("INVALID_TOKEN", None)]
    assert logs_in(PASSWORD)
    assert outcome(anonymous(RESET, token=second, new=ANOTHER)) == DONE


def test_the_token_does_not_follow_the_account_to_another_address(anonymous: Ask, alice: Person) -> None:
    token = requested_token(anonymous)
    User.objects.update(email="liddell@example.com")
    assert outcome(anonymous(RESET, token=token, new=ANOTHER)) == [("INVALID_TOKEN", None)]
    assert logs_in(PASSWORD, "liddell@example.com")


@pytest.mark.parametrize("token", ["", "x", "\x00", "\ud800", "→", "x" * 100_000])
def test_an_unknown_reset_token_is_refused(anonymous: Ask, alice: Person, token: str) -> None:
    requested_token(anonymous)
    assert outcome(anonymous(RESET, token=token, new=ANOTHER)) == [("INVALID_TOKEN", None)]
    assert (logs_in(PASSWORD), revoked()) == (True, 0)


def test_a_request_for_an_unknown_address_is_answered_alike_and_sends_nothing(anonymous: Ask, alice: Person) -> None:
    unknown = anonymous(REQUEST, email="nobody@example.com")
    assert unknown == anonymous(REQUEST, email=ALICE)
    with operator():
        assert [mail.recipient for mail in OutboxMessage.objects.all()] == [ALICE]


def test_a_locked_account_is_one_that_is_not_there(anonymous: Ask, alice: Person) -> None:
    token = requested_token(anonymous)
    User.objects.update(is_active=False)
    assert outcome(anonymous(REQUEST, email=ALICE)) == DONE
    assert subjects_to(ALICE) == ["Set another password"]
    assert outcome(anonymous(RESET, token=token, new=ANOTHER)) == [("INVALID_TOKEN", None)]
    assert logs_in(PASSWORD)


@pytest.mark.parametrize("address", ["", "alice", "alice\x00@example.com", "\ud800@example.com", "a" * 250 + "@b.com"])
def test_what_is_no_address_is_told_so(anonymous: Ask, alice: Person, address: str) -> None:
    assert outcome(anonymous(REQUEST, email=address)) == [("INVALID_EMAIL", "email")]
    with operator():
        assert not MailedToken.objects.exists()


RACE = """
from concurrent.futures import ThreadPoolExecutor
from accounts.actions import passwords
from accounts.tokens import InvalidToken
from django.conf import settings
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

def reset(number):
    try:
        passwords.reset_password(token={token!r}, new_password=f"a long password of {{number}}")
        return number
    except InvalidToken:
        return "refused"

with ThreadPoolExecutor(8) as threads:
    print(*threads.map(reset, range(8)), flush=True)
"""


@pytest.mark.django_db(transaction=True)
def test_of_eight_parallel_resets_with_one_token_one_prevails(anonymous: Ask) -> None:
    make_person("Alice")
    token = requested_token(anonymous)
    answers = start_python(RACE.format(token=token)).communicate(timeout=60)[0].split()
    assert sorted(answers)[1:] == ["refused"] * 7
    (winner,) = (answer for answer in answers if answer != "refused")
    assert logs_in(f"a long password of {winner}")
    assert subjects_to(ALICE) == ["Set another password", "Your password was changed"]


@pytest.mark.django_db(transaction=True)
def test_of_two_changes_at_once_the_second_no_longer_knows_the_password() -> None:
    alice = make_person("Alice")

    def change() -> None:
        passwords.change_password(
            actor=alice.principal, current_password=PASSWORD, new_password="a third long password"
        )

    with in_another_thread() as begin:
        with operator():
            user = User.objects.get()
            user.set_password(ANOTHER)
            user.save(update_fields=["password"])
            changing = begin(change)
        with pytest.raises(WrongCredentials):
            changing.result(timeout=10)
    assert logs_in(ANOTHER)


@pytest.mark.django_db
def test_a_reset_that_waits_in_a_mail_ends_with_a_change(alice: Person) -> None:
    """Whoever could read the mailbox for a moment would take the account back."""
    passwords.request_password_reset(email=ALICE)
    token = token_in(mails_to(ALICE)[-1])
    passwords.change_password(actor=alice.principal, current_password=PASSWORD, new_password=ANOTHER)
    with pytest.raises(tokens.InvalidToken):
        passwords.reset_password(token=token, new_password="yet another password")
    with operator():
        assert User.objects.get(pk=alice.user.pk).check_password(ANOTHER)
