"""Signing up: a user, an organization of their own, and a session; or a refusal that leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.test import override_settings

from accounts.credentials import NOBODYS_PASSWORD
from accounts.models import Membership, Organization, RefreshToken, User
from common.tenancy import operator
from platform_site import settings as deployment

PASSWORD = "correct horse battery"
SIGNUP = """
mutation ($input: SignupInput!) { signup(input: $input) {
  __typename
  ... on Session {
    accessToken refreshToken
    user { email name emailVerified memberships { role organization { name members { role user { email } } } } }
  }
  ... on OperationInfo { messages { kind code field message } }
} }
"""
ME = "{ me { email } organizations { name } }"

Ask = Callable[..., dict[str, Any]]


def sign_up(anonymous: Ask, **fields: Any) -> dict[str, Any]:
    answer = anonymous(SIGNUP, input={"email": "ada@example.com", "password": PASSWORD, **fields})
    assert "errors" not in answer, answer
    return answer["data"]["signup"]


def rows() -> list[int]:
    with operator():
        return [model.objects.count() for model in (User, Organization, Membership, RefreshToken)]


def test_signing_up_makes_a_user_who_owns_an_organization(anonymous: Ask) -> None:
    session = sign_up(anonymous, email=" Ada@Example.com ", name="Ada")
    member = {"role": "OWNER", "user": {"email": "ada@example.com"}}
    assert session["user"] == {
        "email": "ada@example.com",
        "name": "Ada",
        "emailVerified": False,
        "memberships": [{"role": "OWNER", "organization": {"name": "Ada's organization", "members": [member]}}],
    }
    assert rows() == [1, 1, 1, 1]


def test_the_session_that_comes_back_speaks_for_the_new_user(client: Any, anonymous: Ask) -> None:
    token = sign_up(anonymous, organizationName="Analytical Engines")["accessToken"]
    headers = {"Authorization": f"Bearer {token}"}
    answer = client.post("/graphql", {"query": ME}, content_type="application/json", headers=headers).json()
    assert answer == {
        "data": {"me": {"email": "ada@example.com"}, "organizations": [{"name": "Analytical Engines"}]},
    }


@pytest.mark.parametrize(
    "again",
    [
        *("ada@example.com", "ADA@example.com", "  ada@EXAMPLE.com "),
        *("ada@\uff45xample.com", "ada@exam\u00adple.com", "ada@example\u3002com"),  # mail is sent to the same domain
    ],
)
def test_a_known_address_is_taken_however_it_is_typed(anonymous: Ask, again: str) -> None:
    sign_up(anonymous)
    before = rows()
    refusal = sign_up(anonymous, email=again)
    assert refusal == {
        "__typename": "OperationInfo",
        "messages": [
            {
                "kind": "ERROR",
                "code": "EMAIL_TAKEN",
                "field": "email",
                "message": "This address has an account already: log in, or use another one.",
            }
        ],
    }
    assert rows() == before


def test_an_international_domain_has_one_spelling(anonymous: Ask) -> None:
    signed_up = sign_up(anonymous, email="ada@XN--BCHER-KVA.example")
    assert signed_up["user"]["email"] == "ada@bücher.example"
    assert sign_up(anonymous, email="ada@Bücher.example")["messages"][0]["code"] == "EMAIL_TAKEN"


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"password": "short"}, "WEAK_PASSWORD", "password"),
        ({"password": "password1234"}, "WEAK_PASSWORD", "password"),  # everybody's
        ({"password": "ada@example.com"}, "WEAK_PASSWORD", "password"),  # their own address
        ({"password": "a long enough \ud800"}, "WEAK_PASSWORD", "password"),
        ({"password": "a long enough \x00"}, "WEAK_PASSWORD", "password"),
        ({"email": "ada"}, "INVALID_EMAIL", "email"),
        ({"email": ""}, "INVALID_EMAIL", "email"),
        ({"email": "ada\x00@example.com"}, "INVALID_EMAIL", "email"),
        ({"email": "ada\ud800@example.com"}, "INVALID_EMAIL", "email"),
        ({"email": "ada@example\udfff.com"}, "INVALID_EMAIL", "email"),
        ({"email": "a" * 250 + "@example.com"}, "INVALID_EMAIL", "email"),
        ({"email": '"ada"@example.com'}, "INVALID_EMAIL", "email"),  # ada@example.com once more
        ({"email": '"\x1b[2J"@example.com'}, "INVALID_EMAIL", "email"),
        ({"email": "ad\u0131@example.com"}, "INVALID_EMAIL", "email"),
        ({"email": "ada@" + "ü" * 250}, "INVALID_EMAIL", "email"),
        ({"name": "A" * 151}, "INVALID", "name"),
        ({"name": "A\x00"}, "INVALID", "name"),
        ({"name": "A\ud800"}, "INVALID", "name"),
        ({"organizationName": "A" * 151}, "INVALID", "organizationName"),
        ({"organizationName": "A\x00"}, "INVALID", "organizationName"),
        ({"organizationName": "A\udc00"}, "INVALID", "organizationName"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_field_and_leaves_nothing(
    anonymous: Ask, fields: dict[str, str], code: str, field: str
) -> None:
    refusal = sign_up(anonymous, **fields)
    assert [(one["kind"], one["code"], one["field"]) for one in refusal["messages"]] == [("VALIDATION", code, field)]
    assert rows() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "ada's organization"),
        ({"name": None, "organizationName": None}, "ada's organization"),
        ({"name": "  Ada  ", "organizationName": "   "}, "Ada's organization"),
        ({"name": "N" * 150}, "N" * 100 + "'s organization"),
        ({"organizationName": "→ größer 🙂"}, "→ größer 🙂"),
    ],
)
def test_an_organization_is_named_after_its_founder_unless_they_say_otherwise(
    anonymous: Ask, fields: dict[str, str], name: str
) -> None:
    user = sign_up(anonymous, **fields)["user"]
    assert user["memberships"][0]["organization"]["name"] == name


def test_passwords_are_stored_as_bcrypt_hashes_of_twelve_rounds(anonymous: Ask) -> None:
    with override_settings(PASSWORD_HASHERS=deployment.PASSWORD_HASHERS):
        sign_up(anonymous)
        stored = User.objects.get().password
        assert stored.startswith("bcrypt_sha256$$2b$12$")
        assert User.objects.get().check_password(PASSWORD)
        # a login for an unknown address is compared with this one, and has to cost the same
        assert NOBODYS_PASSWORD.startswith("bcrypt_sha256$$2b$12$")
        assert len(NOBODYS_PASSWORD) == len(make_password(PASSWORD))


def test_a_password_counts_to_its_last_character(anonymous: Ask) -> None:
    """bcrypt alone would ignore what follows the 72nd byte."""
    long = "correct horse battery " * 10
    with override_settings(PASSWORD_HASHERS=deployment.PASSWORD_HASHERS):
        sign_up(anonymous, password=long + "a")
        user = User.objects.get()
        assert user.check_password(long + "a")
        assert not user.check_password(long + "b")
        assert not user.check_password(long[:72])
