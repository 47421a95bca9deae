"""Whether an address is its user's: shown with a token that was mailed there, and demanded where the settings say so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import ProgrammingError, transaction
from django.utils import timezone

from accounts import mailed_tokens
from accounts.actions import identity, passwords
from accounts.models import MailedToken, Membership, Organization, RefreshToken, User
from accounts.schedules import remove_expired_mailed_tokens
from accounts.tokens import InvalidToken
from common.models import OutboxMessage
from common.tenancy import operator
from tests.accounts.locks import in_another_thread
from tests.accounts.mailbox import mails_to, subjects_to, token_in
from tests.cast import PASSWORD, Person

ADA = "ada@example.com"
VERIFY = """
mutation ($token: String!) { verifyEmail(input: {token: $token}) {
  __typename ... on Done { ok } ... on OperationInfo { messages { kind code message } }
} }
"""
SIGNUP = """
mutation ($email: String!, $password: String!) { signup(input: {email: $email, password: $password}) {
  __typename ... on Done { ok } ... on OperationInfo { messages { code } }
} }
"""
LOGIN = """
mutation ($email: String!, $password: String!) { login(input: {email: $email, password: $password}) {
  __typename ... on OperationInfo { messages { kind code message } }
} }
"""
DONE = {"data": {"verifyEmail": {"__typename": "Done", "ok": True}}}
WELCOME, KNOWN = "Is ada@example.com yours?", "You have an account already"

Ask = Callable[..., dict[str, Any]]


def code(answer: dict[str, Any]) -> str:
    (field,) = answer["data"].values()
    (message,) = field["messages"]
    return str(message["code"])


def is_verified(address: str = ADA) -> bool:
    return User.objects.get(email=address).email_verified


def expire_mailed_tokens() -> None:
    with operator():
        MailedToken.objects.update(expires_at=timezone.now())


def rows() -> list[int]:
    with operator():
        return [model.objects.count() for model in (User, Organization, Membership, RefreshToken, MailedToken)]


def test_a_sign_up_sends_a_token_that_verifies_the_address(anonymous: Ask) -> None:
    identity.sign_up(email=ADA, password=PASSWORD)
    (mail,) = mails_to(ADA)
    assert (mail.subject, mail.organization_id) == (WELCOME, None)
    assert not is_verified()
    assert anonymous(VERIFY, token=token_in(mail)) == DONE
    assert is_verified()


def test_the_mail_says_what_to_do(settings: Any, db: None) -> None:
    settings.PUBLIC_URL = "https://platform.example.com"
    identity.sign_up(email=ADA, password=PASSWORD)
    (mail,) = mails_to(ADA)
    token = token_in(mail)
    assert (
        mail.body
        == f"""Somebody has signed up with ada@example.com. If it was you, show it with this token, which works once within an hour:

    {token}

  https://platform.example.com/graphql
  mutation {{ verifyEmail(input: {{token: "{token}"}}) {{ ... on Done {{ ok }} ... on OperationInfo {{ messages {{ message }} }} }} }}

If it was not you, there is nothing to do.
"""
    )


def test_a_token_works_once(anonymous: Ask) -> None:
    identity.sign_up(email=ADA, password=PASSWORD)
    token = token_in(mails_to(ADA)[0])
    anonymous(VERIFY, token=token)
    again = anonymous(VERIFY, token=token)
    assert again == {
        "data": {
            "verifyEmail": {
                "__typename": "OperationInfo",
                "messages": [
                    {
                        "kind": "ERROR",
                        "code": "INVALID_TOKEN",
                        "message": "This token is not valid (any more). Ask for another mail: each token works once, "
                        "for an hour, and until the next one.",
                    }
                ],
            }
        }
    }


def test_a_token_works_for_an_hour(anonymous: Ask) -> None:
    identity.sign_up(email=ADA, password=PASSWORD)
    with operator():
        lifetime = MailedToken.objects.get().expires_at - timezone.now()
    assert timedelta(minutes=59) < lifetime <= timedelta(hours=1)
    expire_mailed_tokens()
    assert code(anonymous(VERIFY, token=token_in(mails_to(ADA)[0]))) == "INVALID_TOKEN"
    assert not is_verified()


@pytest.mark.parametrize("token", ["", "x", "\x00", "\ud800", "→", "x" * 100_000])
def test_an_unknown_token_is_refused(anonymous: Ask, token: str) -> None:
    identity.sign_up(email=ADA, password=PASSWORD)
    assert code(anonymous(VERIFY, token=token)) == "INVALID_TOKEN"
    assert not is_verified()


def test_a_token_to_set_a_password_with_verifies_nothing(anonymous: Ask) -> None:
    identity.sign_up(email=ADA, password=PASSWORD)
    passwords.request_password_reset(email=ADA)
    before = rows()
    assert code(anonymous(VERIFY, token=token_in(mails_to(ADA)[1]))) == "INVALID_TOKEN"
    assert (is_verified(), rows()) == (False, before)


def test_a_new_token_voids_the_one_before(db: None) -> None:
    with operator():
        first, second = (mailed_tokens.issue(identity.VERIFY_EMAIL, ADA) for _ in range(2))
        with pytest.raises(InvalidToken):
            mailed_tokens.use(identity.VERIFY_EMAIL, first)
        assert mailed_tokens.use(identity.VERIFY_EMAIL, second) == ADA


def test_the_token_does_not_follow_the_account_to_another_address(anonymous: Ask) -> None:
    identity.sign_up(email=ADA, password=PASSWORD)
    User.objects.update(email="lovelace@example.com")
    assert code(anonymous(VERIFY, token=token_in(mails_to(ADA)[0]))) == "INVALID_TOKEN"
    assert not is_verified("lovelace@example.com")


def test_tokens_have_256_bits_and_are_stored_as_hashes_only(db: None) -> None:
    with operator():
        tokens = {mailed_tokens.issue(identity.VERIFY_EMAIL, f"{number}@example.com") for number in range(20)}
        assert (len(tokens), {len(token) for token in tokens}) == (20, {43})
        stored = [str(value) for row in MailedToken.objects.values_list() for value in row]
    assert all(token not in value for token in tokens for value in stored)


def test_no_tenants_scope_reads_or_writes_them(alice: Person) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        MailedToken.objects.count()
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        mailed_tokens.issue(identity.VERIFY_EMAIL, ADA)


def test_the_keeper_removes_the_expired_ones_alone(db: None) -> None:
    with operator():
        mailed_tokens.issue(identity.VERIFY_EMAIL, ADA)
    expire_mailed_tokens()
    with operator():
        mailed_tokens.issue(identity.VERIFY_EMAIL, "bob@example.com")
    remove_expired_mailed_tokens()
    with operator():
        assert [token.address for token in MailedToken.objects.all()] == ["bob@example.com"]


def test_nobody_has_to_verify_anything_unless_the_settings_say_so(anonymous: Ask) -> None:
    identity.sign_up(email=ADA, password=PASSWORD)
    assert anonymous(LOGIN, email=ADA, password=PASSWORD)["data"]["login"]["__typename"] == "Session"


@pytest.fixture
def verified_only(settings: Any) -> None:
    settings.REQUIRE_VERIFIED_EMAIL = True


@pytest.mark.usefixtures("verified_only")
def test_a_sign_up_answers_alike_for_known_and_unknown_addresses(anonymous: Ask) -> None:
    unknown = anonymous(SIGNUP, email=ADA, password=PASSWORD)
    before = rows()
    known = anonymous(SIGNUP, email=ADA.upper(), password="another long password")
    assert known == unknown == {"data": {"signup": {"__typename": "Done", "ok": True}}}
    assert subjects_to(ADA) == [WELCOME, KNOWN]
    assert rows() == before == [1, 1, 1, 0, 1]
    assert User.objects.get().check_password(PASSWORD)


@pytest.mark.usefixtures("verified_only")
def test_a_sign_up_for_a_known_address_leaves_the_token_that_it_waits_for(anonymous: Ask) -> None:
    for _ in range(2):
        anonymous(SIGNUP, email=ADA, password=PASSWORD)
    assert anonymous(VERIFY, token=token_in(mails_to(ADA)[0])) == DONE


@pytest.mark.usefixtures("verified_only")
def test_a_login_waits_for_the_address_to_be_verified(anonymous: Ask) -> None:
    anonymous(SIGNUP, email=ADA, password=PASSWORD)
    refused = anonymous(LOGIN, email=ADA, password=PASSWORD)
    assert refused["data"]["login"]["messages"] == [
        {
            "kind": "ERROR",
            "code": "EMAIL_NOT_VERIFIED",
            "message": "This address is not verified yet. Use the token in the mail that was sent there.",
        }
    ]
    with operator():
        assert RefreshToken.objects.count() == 0
    anonymous(VERIFY, token=token_in(mails_to(ADA)[0]))
    assert anonymous(LOGIN, email=ADA, password=PASSWORD)["data"]["login"]["__typename"] == "Session"


@pytest.mark.usefixtures("verified_only")
def test_only_the_right_password_learns_that_the_address_is_not_verified(anonymous: Ask) -> None:
    anonymous(SIGNUP, email=ADA, password=PASSWORD)
    wrong = anonymous(LOGIN, email=ADA, password="another long password")
    assert wrong == anonymous(LOGIN, email="nobody@example.com", password=PASSWORD)
    assert code(wrong) == "WRONG_CREDENTIALS"


@pytest.mark.usefixtures("verified_only")
def test_a_login_sends_another_token_once_the_last_one_has_expired(anonymous: Ask) -> None:
    anonymous(SIGNUP, email=ADA, password=PASSWORD)
    for _ in range(2):
        anonymous(LOGIN, email=ADA, password=PASSWORD)
    assert subjects_to(ADA) == [WELCOME]
    expire_mailed_tokens()
    anonymous(LOGIN, email=ADA, password="another long password")
    assert subjects_to(ADA) == [WELCOME]
    assert code(anonymous(LOGIN, email=ADA, password=PASSWORD)) == "EMAIL_NOT_VERIFIED"
    assert subjects_to(ADA) == [WELCOME, WELCOME]
    assert anonymous(VERIFY, token=token_in(mails_to(ADA)[1])) == DONE


@pytest.mark.usefixtures("verified_only")
def test_what_cannot_be_used_is_still_refused(anonymous: Ask) -> None:
    assert code(anonymous(SIGNUP, email=ADA, password="short")) == "WEAK_PASSWORD"
    assert code(anonymous(SIGNUP, email="ada", password=PASSWORD)) == "INVALID_EMAIL"
    assert rows() == [0, 0, 0, 0, 0]
    with operator():
        assert not OutboxMessage.objects.exists()


@pytest.mark.usefixtures("verified_only")
@pytest.mark.django_db(transaction=True)
def test_of_two_sign_ups_at_once_one_makes_the_account_and_both_are_answered_alike() -> None:
    with in_another_thread() as begin:
        with operator():
            User.objects.create_user(ADA, PASSWORD)
            signing_up = begin(lambda: identity.sign_up(email=ADA, password="another long password"))
        assert signing_up.result(timeout=10) is None
    assert User.objects.get().check_password(PASSWORD)
    assert rows() == [1, 0, 0, 0, 0]
    assert subjects_to(ADA) == [KNOWN]
