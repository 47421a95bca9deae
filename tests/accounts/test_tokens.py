"""Access tokens: one answer to every one that is not valid, whatever is wrong with it."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from django.conf import settings
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import tokens
from accounts.models import RefreshToken, User
from accounts.principals import principal_of
from accounts.tokens import InvalidToken
from common.tenancy import APP_ROLE, operator
from tests.cast import Person

Claims = dict[str, Any]
JWK = {"kty": "oct", "k": base64.urlsafe_b64encode(b"mine" * 10).decode()}
ELSEWHERE = "https://keys.example.com/mine"


def valid_claims(person: Person) -> Claims:
    return jwt.decode(person.token, options={"verify_signature": False})


def signed(claims: Claims, key: str | bytes | None = None, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode(claims, settings.SECRET_KEY if key is None else key, algorithm=algorithm, headers=headers or None)


def mine(claims: Claims, **headers: Any) -> str:
    """Signed with a key of the forger's, which the header brings along."""
    return signed(claims, "mine" * 10, **headers)


def unsigned(claims: Claims, algorithm: str) -> str:
    parts = [{"alg": algorithm, "typ": "JWT"}, claims]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, ""])


def signed_by_hand(claims: Claims, secret: bytes) -> str:
    """HS256 with a secret that PyJWT refuses to sign with: an empty one, or a public key."""
    head = unsigned(claims, "HS256").rstrip(".")
    signature = hmac.digest(secret, head.encode(), "sha256")
    return f"{head}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def headed(claims: Claims, header: str) -> str:
    """With any header at all, and our signature of something else."""
    _, payload, signature = signed(claims).split(".")
    return ".".join([base64.urlsafe_b64encode(header.encode()).decode().rstrip("="), payload, signature])


def without(claims: Claims, name: str) -> Claims:
    return {key: value for key, value in claims.items() if key != name}


def now() -> int:
    return int(time.time())


FORGERIES: dict[str, Callable[[Claims], str]] = {
    "alg none": lambda claims: unsigned(claims, "none"),
    "alg None": lambda claims: unsigned(claims, "None"),
    "alg nOnE": lambda claims: unsigned(claims, "nOnE"),
    "alg of no text": lambda claims: headed(claims, '{"alg": ["HS256"], "typ": "JWT"}'),
    "no alg": lambda claims: headed(claims, '{"typ": "JWT"}'),
    "no signature": lambda claims: unsigned(claims, "HS256"),
    "another key": lambda claims: signed(claims, "another secret that is long enough, too"),
    "the empty key": lambda claims: signed_by_hand(claims, b""),
    "HS512": lambda claims: signed(claims, algorithm="HS512"),
    "HS384": lambda claims: signed(claims, algorithm="HS384"),
    "an embedded key": lambda claims: mine(claims, jwk=JWK),
    "a remote key set": lambda claims: mine(claims, jku=ELSEWHERE),
    "a remote certificate": lambda claims: mine(claims, x5u=ELSEWHERE),
    "an embedded certificate": lambda claims: mine(claims, x5c=["bWluZQ=="]),
    "a key of another name": lambda claims: mine(claims, kid="../../dev/null"),
    "a critical extension": lambda claims: signed(claims, crit=["exp"]),
    "a payload that is elsewhere": lambda claims: headed(claims, '{"alg": "HS256", "b64": false, "crit": ["b64"]}'),
    "a header without end": lambda claims: headed(claims, '{"alg":' * 5_000),
    "expired": lambda claims: signed({**claims, "exp": now() - 31}),
    "not yet valid": lambda claims: signed({**claims, "nbf": now() + 45}),
    "issued in the future": lambda claims: signed({**claims, "iat": now() + 45}),
    "an expiry that is no number": lambda claims: signed({**claims, "exp": "never"}),
    "another audience": lambda claims: signed({**claims, "aud": "inference"}),
    "another issuer": lambda claims: signed({**claims, "iss": "somebody"}),
    "another type": lambda claims: signed({**claims, "token_type": "refresh"}),
    "a subject that is no id": lambda claims: signed({**claims, "sub": "alice"}),
    "a subject that is no text": lambda claims: signed({**claims, "sub": 7}),
    "an unknown user": lambda claims: signed({**claims, "sub": str(uuid4())}),
    "an unknown session": lambda claims: signed({**claims, "sid": str(uuid4())}),
    "a session that is no id": lambda claims: signed({**claims, "sid": "alice"}),
    "a session that is no text": lambda claims: signed({**claims, "sid": 7}),
    "claims that are no object": lambda claims: "eyJhbGciOiJIUzI1NiJ9.W10.c2ln",
    "garbage": lambda claims: "garbage",
    "garbage in three parts": lambda claims: "a.b.c",
    "nothing": lambda claims: "",
    "not ASCII": lambda claims: "ÿþ",
}
FORGERIES |= {
    f"no {name}": lambda claims, name=name: signed(without(claims, name))  # type: ignore[misc]
    for name in ("exp", "nbf", "iat", "iss", "aud", "jti", "token_type", "sub", "sid")
}
UNAUTHENTICATED = {
    "data": None,
    "errors": [
        {
            "message": "Sign in first: send `Authorization: Bearer <access token>`.",
            "extensions": {"code": "UNAUTHENTICATED"},
        }
    ],
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


def test_an_access_token_names_its_session_and_lives_ten_minutes(alice: Person) -> None:
    claims = valid_claims(alice)
    with operator():
        family = RefreshToken.objects.get().family
    assert claims["exp"] - claims["iat"] == 600
    assert jwt.get_unverified_header(alice.token) == {"alg": "HS256", "typ": "JWT"}
    assert without(without(without(claims, "exp"), "iat"), "jti") == {
        "iss": "platform",
        "aud": "platform-api",
        "token_type": "access",
        "nbf": claims["iat"],
        "sub": str(alice.user.pk),
        "sid": str(family),
    }


def test_the_principal_knows_the_session_and_its_end(alice: Person) -> None:
    claims = valid_claims(alice)
    principal = principal_of(alice.token)
    assert principal.session == UUID(claims["sid"])
    assert principal.expires_at == datetime.fromtimestamp(claims["exp"], tz=UTC)


@pytest.mark.django_db(transaction=True)
def test_who_it_is_and_whether_the_session_is_live_is_one_exchange(alice: Person, bob: Person) -> None:
    with CaptureQueriesContext(connection) as exchanges:
        principal = principal_of(bob.token)
    assert principal.roles == {alice.organization.pk: "MEMBER"}
    assert len(exchanges) == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() == (APP_ROLE,), "the role ends with the statement"


@pytest.mark.parametrize("what", FORGERIES)
def test_a_token_that_is_not_valid_gets_the_one_answer(alice: Person, what: str) -> None:
    answer = ask(f"Bearer {FORGERIES[what](valid_claims(alice))}")
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json() == UNAUTHENTICATED


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
def test_a_clock_may_be_half_a_minute_off(alice: Person, claim: str) -> None:
    off_s = -25 if claim == "exp" else 25
    assert ask(f"Bearer {signed({**valid_claims(alice), claim: now() + off_s})}").status_code == 200


def test_a_token_that_was_good_is_good_neither_after_nor_before_it_says(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = tokens.read(alice.token)
    begins_at = claims.expires_at - timedelta(minutes=10)
    for since, off_s, is_good in (
        *((claims.expires_at, off_s, is_good) for off_s, is_good in ((29, True), (30, False), (29, True))),
        *((begins_at, off_s, is_good) for off_s, is_good in ((-30, True), (-31, False), (-30, True))),
    ):
        at = since + timedelta(seconds=off_s)
        monkeypatch.setattr(timezone, "now", lambda at=at: at)
        if is_good:
            assert tokens.read(alice.token) == claims
        else:
            with pytest.raises(InvalidToken):
                tokens.read(alice.token)


def test_tokens_that_are_not_valid_are_not_kept(alice: Person) -> None:
    tokens.read(alice.token)
    kept = tokens._signed.cache_info().currsize
    for what in ("another key", "expired", "garbage"):
        with pytest.raises(InvalidToken):
            tokens.read(FORGERIES[what](valid_claims(alice)))
    assert tokens._signed.cache_info().currsize == kept


def test_a_key_pair_is_of_no_use_either_way(alice: Person) -> None:
    """RS256 where HS256 is expected; and HS256 with a text that everybody may know as its secret, the public key."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = valid_claims(alice)
    for token in (signed(claims, private, "RS256"), signed_by_hand(claims, public), signed_by_hand(claims, b"HS256")):
        answer = ask(f"Bearer {token}")
        assert (answer.status_code, answer.json()) == (401, UNAUTHENTICATED)
    ours = signed_by_hand(claims, settings.SECRET_KEY.encode())
    assert ask(f"Bearer {ours}").status_code == 200  # or else the signature by hand would prove nothing


@pytest.mark.parametrize("part", [0, 1, 2], ids=["header", "payload", "signature"])
def test_a_flipped_bit_anywhere_makes_it_invalid(alice: Person, part: int) -> None:
    """Each character of the part, one of its bits; the signature's last one, too, of which four bits alone count."""
    parts = alice.token.split(".")
    for place, character in enumerate(parts[part]):
        flipped = chr(ord(character) ^ (1 << place % 7))
        changed = [*parts[:part], parts[part][:place] + flipped + parts[part][place + 1 :], *parts[part + 1 :]]
        with pytest.raises(InvalidToken):
            principal_of(".".join(changed))
    last = parts[part][-1]
    for bit in range(7):
        changed = [*parts[:part], parts[part][:-1] + chr(ord(last) ^ (1 << bit)), *parts[part + 1 :]]
        with pytest.raises(InvalidToken):
            principal_of(".".join(changed))
    assert principal_of(alice.token).user_id == alice.user.pk


@pytest.mark.parametrize(
    "authorization", ["Basic YWxpY2U6eA==", "Bearer", "x", "Bearer a b", "Token {token}", "{token}"]
)
def test_another_kind_of_authorization_gets_it_too(alice: Person, authorization: str) -> None:
    assert ask(authorization.format(token=alice.token)).status_code == 401


def test_the_token_of_a_closed_account_gets_it_too(alice: Person) -> None:
    User.objects.update(is_active=False)
    assert ask(f"Bearer {alice.token}").status_code == 401


def test_the_session_of_somebody_else_is_none(alice: Person, bob: Person) -> None:
    hers, his = valid_claims(alice), valid_claims(bob)
    assert ask(f"Bearer {signed({**hers, 'sid': his['sid']})}").status_code == 401


def test_one_revoked_session_ends_its_access_tokens_and_no_others(alice: Person, bob: Person) -> None:
    with operator():
        RefreshToken.objects.filter(user=alice.user).update(revoked_at=datetime.now(UTC))
    answer = ask(f"Bearer {alice.token}")
    assert (answer.status_code, answer.json()) == (401, UNAUTHENTICATED)
    assert ask(f"Bearer {bob.token}").status_code == 200


def test_the_look_up_reads_no_row_of_a_long_session_that_was_revoked(alice: Person) -> None:
    """Two weeks of a client that refreshes every ten minutes."""
    family = uuid4()
    moment = datetime.now(UTC) + timedelta(days=1)
    with operator():
        RefreshToken.objects.bulk_create(
            RefreshToken(user=alice.user, family=family, token_sha256=number, expires_at=moment, revoked_at=moment)
            for number in range(2000)
        )
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE accounts_refreshtoken")
        look_up = RefreshToken.objects.live().filter(family=family, user=alice.user)
        assert "refreshtoken_unrevoked" in look_up.explain()
        assert "Rows Removed by Filter" not in look_up.explain(analyze=True)
        assert not look_up.exists()
