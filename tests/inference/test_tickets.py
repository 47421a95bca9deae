"""Tickets: what the inference server believes, and what it refuses, each refusal like the other."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from inference.tickets import LIFETIME_S, Ticket, TicketRefused, issue, issue_status, verify, verify_status

SECRET = "an installation's secret, 32 bytes or longer"
TICKET = Ticket("org-1", "python-small", 64, "t/org-1/adapters/7", "d" * 64)


def forged(secret: str = SECRET, algorithm: str = "HS256", without: str = "", **changes: Any) -> str:
    claims = jwt.decode(issue(TICKET, SECRET), options={"verify_signature": False}) | changes
    claims.pop(without, None)
    return jwt.encode(claims, secret if algorithm != "none" else "", algorithm=algorithm)


def test_what_is_issued_is_what_is_verified() -> None:
    assert verify(issue(TICKET, SECRET), SECRET, "python-small") == TICKET
    base_alone = Ticket("org-1", "python-small", 64)
    assert verify(issue(base_alone, SECRET), SECRET, "python-small") == base_alone
    claims = jwt.decode(issue(TICKET, SECRET), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == LIFETIME_S == 60


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (forged(exp=int(time.time()) - 30), "expired"),
        (forged(secret="another secret, also long enough for HS256"), "signed with another secret"),
        (forged(algorithm="none"), "alg none"),
        (forged(algorithm="HS512"), "another algorithm"),
        (forged(base="another-model"), "for another base model"),
        (forged(aud="platform-api"), "an access token of the API"),
        (forged(iss="somebody"), "of another issuer"),
        (issue_status(SECRET), "to see the server's status"),
        (forged(without="exp"), "for ever"),
        (forged(iat=int(time.time()) + 600), "from the future"),
        (forged(adapter_digest=None), "a key without a digest"),
        (forged(adapter_key=None), "a digest without a key"),
        (forged(limits=None), "without limits"),
        (forged(limits={"max_new_tokens": "9"}), "with limits that are none"),
        (forged(organization=7), "with a strange organization"),
        (issue(TICKET, SECRET)[:-2], "cut short"),
        ("", "empty"),
        ("a.b.c", "not a token"),
        ("\ud800.é.", "not even text"),
        (None, "absent"),
        ({"alg": "none"}, "an object"),
    ],
)
def test_refused_alike(token: object, why: str) -> None:
    with pytest.raises(TicketRefused) as refusal:
        verify(token, SECRET, "python-small")
    assert refusal.value.args == (), why


def test_a_ticket_to_see_the_status_is_no_other() -> None:
    verify_status(issue_status(SECRET), SECRET)
    for token in (
        issue(TICKET, SECRET),
        issue_status("another secret, also long enough for HS256"),
        forged(aud="inference-status", exp=int(time.time()) - 30),
        None,
        "",
    ):
        with pytest.raises(TicketRefused):
            verify_status(token, SECRET)
