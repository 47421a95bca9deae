"""Whoever is over a rate is told so without a thread, for a second; nobody else is, and nobody for longer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.db import connection, transaction

from platform_site.answers import Answer
from platform_site.limits.refusals import HOLDS_S, Refusals
from tests.cast import make_person, session_of
from tests.web import serving

ALICE, BOB = (b"Bearer a", "192.0.2.1"), (b"Bearer b", "192.0.2.1")


def refusal(number: int) -> Answer:
    return Answer(429, [], b"%d" % number)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_refusal_holds_for_a_second_for_whoever_it_was() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    refusals.remember(ALICE, refusal(1))
    assert refusals.of(ALICE) == refusal(1)
    assert refusals.of(BOB) is None
    assert refusals.of((ALICE[0], "192.0.2.2")) is None
    clock.now += HOLDS_S - 0.001
    assert refusals.of(ALICE) == refusal(1)
    clock.now += 0.001
    assert refusals.of(ALICE) is None


def test_those_that_hold_no_more_are_forgotten() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for number in range(100):
        refusals.remember((b"%d" % number, ""), refusal(number))
        clock.now += 0.1
    assert len(refusals._known) <= 11
    assert refusals.of((b"99", "")) == refusal(99)


def test_one_that_is_told_again_holds_from_then_on() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    refusals.remember(ALICE, refusal(1))
    refusals.remember(BOB, refusal(2))
    clock.now += 0.9
    refusals.remember(ALICE, refusal(3))
    clock.now += 0.5
    refusals.remember(BOB, refusal(4))
    assert (refusals.of(ALICE), refusals.of(BOB)) == (refusal(3), refusal(4))


@contextmanager
def nobody_is_told_apart() -> Iterator[None]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE accounts_membership IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.django_db(transaction=True)
def test_whoever_is_over_the_rate_is_answered_while_no_thread_could(settings: Any) -> None:
    ada, ben = make_person(f"ada-{uuid4().hex}"), make_person(f"ben-{uuid4().hex}")
    elsewhere = session_of(ada.user).access_token
    settings.REQUESTS_PER_MINUTE = 2

    def ask(site: str, token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        body = {"query": "{ __typename }"}
        return httpx.post(f"{site}/graphql", json=body, headers=headers, timeout=30, trust_env=False)

    with serving() as site, ThreadPoolExecutor(1) as other:
        assert [ask(site, ada.token).status_code for _ in range(2)] == [200, 200]
        # nothing is known of these credentials yet, so it is not the pace that refuses them
        refused = ask(site, elsewhere)
        assert refused.status_code == 429
        with nobody_is_told_apart():
            waits = other.submit(ask, site, ben.token)
            again = ask(site, elsewhere)
            assert (again.status_code, again.content) == (429, refused.content)
            assert again.headers["Retry-After"] == refused.headers["Retry-After"]
            assert not waits.done()
        assert waits.result().status_code == 200


@pytest.mark.django_db(transaction=True)
def test_of_a_network_one_login_too_many_refuses_nobody_else(settings: Any) -> None:
    settings.LOGINS_PER_ACCOUNT = 1
    login = {
        "query": "mutation ($input: LoginInput!) { login(input: $input) { __typename } }",
        "variables": {"input": {"email": f"{uuid4().hex}@example.com", "password": "wrong"}},
    }
    with serving() as site, httpx.Client(base_url=site, timeout=60, trust_env=False) as client:
        statuses = [client.post("/graphql", json=login).status_code for _ in range(2)]
        assert statuses == [200, 429]
        assert client.post("/graphql", json={"query": "{ __typename }"}).status_code == 200
