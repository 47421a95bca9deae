"""Whoever asks too fast is slowed down, and then refused, over real HTTP; whoever waits for each answer is not."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from platform_site.limits import excess, pacing, requests
from platform_site.limits.pacing import MOST_DELAY_S
from platform_site.limits.requests import burst_of
from tests.cast import make_person
from tests.web import serving


def ask(site: str, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{site}/graphql", json={"query": "{ __typename }"}, headers=headers, timeout=60, trust_env=False)


@pytest.fixture
def quick(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second's work to be over a rate: five at once, and one a second, of whoever is held back."""
    settings.REQUESTS_PER_MINUTE = 66
    monkeypatch.setattr(pacing, "AT_ONCE", 5)
    monkeypatch.setattr(pacing, "SMALLEST_AT_ONCE", 5)


@pytest.mark.django_db(transaction=True)
def test_a_flood_is_served_at_its_rate_and_told_so_and_nobody_else_is(quick: None) -> None:
    ada, ben = make_person(f"ada-{uuid4().hex}"), make_person(f"ben-{uuid4().hex}")
    with serving() as site, ThreadPoolExecutor(40) as pool:
        assert ask(site, ada.token).status_code == 200  # which tells her rate
        begun = time.monotonic()
        answers = list(pool.map(lambda _: ask(site, ada.token), range(40)))
        took = time.monotonic() - begun
        assert ask(site, ben.token).status_code == 200
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(served) + len(refused) == 40
    assert 4 <= len(served) <= 5 + 1.1 * (took + MOST_DELAY_S)
    assert refused or took > 30
    for answer in refused:
        (error,) = answer.json()["errors"]
        assert error["message"].startswith("As many requests as there may be wait for their turn, at 66 a minute: ")
        assert (error["extensions"]["code"], error["extensions"]["quota"]) == ("QUOTA_EXCEEDED", "requestsPerMinute")
        assert answer.headers["Retry-After"] in ("1", "2", "3") and answer.headers["RateLimit-Limit"] == "66"


@pytest.mark.django_db(transaction=True)
def test_a_program_that_waits_for_its_answers_is_never_refused(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen are allowed within two seconds; thirty in a row are more, if nobody holds them back."""
    ada = make_person(f"ada-{uuid4().hex}")
    settings.REQUESTS_PER_MINUTE = 300
    monkeypatch.setattr(pacing, "AT_ONCE", 5)
    monkeypatch.setattr(pacing, "SMALLEST_AT_ONCE", 5)
    monkeypatch.setattr(requests, "SMALLEST_BURST", 1)
    monkeypatch.setattr(requests, "BURST_S", 2)
    monkeypatch.setitem(requests._WORDS, 2, ("requests_per_ten_seconds", "two seconds"))
    assert burst_of(300).count == 15
    with serving() as site:
        assert [ask(site, ada.token).status_code for _ in range(30)] == [200] * 30


@pytest.mark.django_db(transaction=True)
def test_where_as_many_are_held_back_as_may_be_nobody_else_is(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = make_person(f"ada-{uuid4().hex}")
    with serving() as site:
        assert [ask(site, ada.token).status_code for _ in range(5)] == [200] * 5
        monkeypatch.setattr(excess, "_held_back", asyncio.Semaphore(0))
        begun = time.monotonic()
        assert ask(site, ada.token).status_code == 200
        assert time.monotonic() - begun < 60 / 66 / 2
