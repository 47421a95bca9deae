"""Access tokens: one answer to every one that is not valid, whatever is wrong with it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import jwt
import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import Client

from accounts.models import User
from tests.cast import Person

Claims = dict[str, Any]


def valid_claims(person: Person) -> Claims:
    return jwt.decode(person.token, options={"verify_signature": False})


def signed(claims: Claims, key: str | None = None, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode(claims, settings.SECRET_KEY if key is None else key, algorithm=algorithm, headers=headers or None)


def unsigned(claims: Claims, algorithm: str) -> str:
    parts = [{"alg": algorithm, "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, ""])


def without(claims: Claims, name: str) -> Claims:
    return {key: value for key, value in claims.items() if key != name}


FORGERIES: dict[str, Callable[[Claims], str]] = {
    "alg none": lambda claims: unsigned(claims, "none"),
    "alg None": lambda claims: unsigned(claims, "None"),
    "no signature": lambda claims: unsigned(claims, "HS256"),
    "another key": lambda claims: signed(claims, "another secret that is long enough, too"),
    "another algorithm": lambda claims: signed(claims, algorithm="HS512"),
    "an embedded key": lambda claims: signed(claims, "mine" * 10, jwk={"kty": "oct", "k": "bWluZQ"}),
    "expired": lambda claims: signed({**claims, "exp": int(time.time()) - 31}),
    "not yet valid": lambda claims: signed({**claims, "nbf": int(time.time()) + 600}),
    "no expiry": lambda claims: signed(without(claims, "exp")),
    "another audience": lambda claims: signed({**claims, "aud": "inference"}),
    "no audience": lambda claims: signed(without(claims, "aud")),
    "another issuer": lambda claims: signed({**claims, "iss": "somebody"}),
    "no issuer": lambda claims: signed(without(claims, "iss")),
    "another type": lambda claims: signed({**claims, "token_type": "refresh"}),
    "no type": lambda claims: signed(without(claims, "token_type")),
    "no subject": lambda claims: signed(without(claims, "sub")),
    "a subject that is no id": lambda claims: signed({**claims, "sub": "alice"}),
    "a subject that is no text": lambda claims: signed({**claims, "sub": 7}),
    "an unknown user": lambda claims: signed({**claims, "sub": str(uuid4())}),
    "claims that are no object": lambda claims: "eyJhbGciOiJIUzI1NiJ9.W10.c2ln",
    "garbage": lambda claims: "garbage",
    "garbage in three parts": lambda claims: "a.b.c",
    "nothing": lambda claims: "",
    "not ASCII": lambda claims: "ÿþ",
}


def ask(authorization: str | None) -> HttpResponse:
    headers = {} if authorization is None else {"Authorization": authorization}
    body = json.dumps({"query": "{ me { email } }"})
    return Client().post("/graphql", body, content_type="application/json", headers=headers)


def test_a_valid_token_speaks_for_its_user(alice: Person) -> None:
    assert ask(f"Bearer {alice.token}").json() == {"data": {"me": {"email": "alice@example.com"}}}
    assert ask(f"bearer  {alice.token} ").json() == {"data": {"me": {"email": "alice@example.com"}}}
    again = signed(valid_claims(alice))
    assert ask(f"Bearer {again}").json() == {"data": {"me": {"email": "alice@example.com"}}}


def test_an_access_token_lives_ten_minutes(alice: Person) -> None:
    claims = valid_claims(alice)
    assert claims["exp"] - claims["iat"] == 600
    assert {name: claims[name] for name in ("iss", "aud", "token_type", "sub")} == {
        "iss": "platform",
        "aud": "platform-api",
        "token_type": "access",
        "sub": str(alice.user.pk),
    }


@pytest.mark.parametrize("what", FORGERIES)
def test_a_token_that_is_not_valid_gets_the_one_answer(alice: Person, what: str) -> None:
    answer = ask(f"Bearer {FORGERIES[what](valid_claims(alice))}")
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json() == {
        "data": None,
        "errors": [
            {
                "message": "Sign in first: send `Authorization: Bearer <access token>`.",
                "extensions": {"code": "UNAUTHENTICATED"},
            }
        ],
    }


@pytest.mark.parametrize(
    "authorization", ["Basic YWxpY2U6eA==", "Bearer", "x", "Bearer a b", "Token {token}", "{token}"]
)
def test_another_kind_of_authorization_gets_it_too(alice: Person, authorization: str) -> None:
    assert ask(authorization.format(token=alice.token)).status_code == 401


def test_the_token_of_a_closed_account_gets_it_too(alice: Person) -> None:
    User.objects.update(is_active=False)
    assert ask(f"Bearer {alice.token}").status_code == 401
