"""So many requests a minute: of a user, of an organization's keys together, of an address where nobody is signed in."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.test import Client
from django.utils import timezone

from accounts.actions.keys import create_key
from accounts.models import Membership, Quota, Role
from common.tenancy import operator, tenant
from platform_site.limits import pacing, requests
from tests.cast import Person, make_person
from tests.rows import global_id, make_run
from tests.sockets import greet, hear, socket, tell
from tests.web import serving

ME = "{ me { email } }"
TYPE = "{ __typename }"
WATCH = "subscription ($id: ID!) { trainingRunEvents(id: $id) { sequence } }"


@pytest.fixture
def place() -> str:
    return somewhere()


def somewhere() -> str:
    number = uuid4().hex
    return f"2001:db8:{number[:4]}:{number[4:8]}::1"


def ask(place: str, bearer: str | None, document: str = ME) -> Any:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    body = json.dumps({"query": document})
    return Client(REMOTE_ADDR=place).post("/graphql", body, content_type="application/json", headers=headers)


def rate_headers(response: Any) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.lower().startswith("ratelimit-")}


def make_key(person: Person) -> str:
    with tenant(person.principal):
        key = create_key(
            actor=person.principal, organization=person.organization, name="k", role=Role.MEMBER, expires_at=None
        )
    return key.secret


def test_each_answer_says_how_many_are_left(alice: Person, place: str, settings: Any) -> None:
    settings.REQUESTS_PER_MINUTE = 3
    left = []
    for _ in range(3):
        answer = ask(place, alice.token)
        assert (answer.status_code, answer.json()) == (200, {"data": {"me": {"email": "alice@example.com"}}})
        assert "Retry-After" not in answer.headers
        shown = rate_headers(answer)
        assert shown["RateLimit-Limit"] == "3"
        assert 1 <= int(shown["RateLimit-Reset"]) <= 120
        left.append(shown["RateLimit-Remaining"])
    assert left == ["2", "1", "0"]


def test_one_too_many_is_a_429_that_says_when_to_come_again(alice: Person, place: str, settings: Any) -> None:
    settings.REQUESTS_PER_MINUTE = 2
    assert [ask(place, alice.token).status_code for _ in range(2)] == [200, 200]
    answer = ask(place, alice.token)
    assert answer.status_code == 429
    (error,) = answer.json()["errors"]
    assert error["message"].startswith("More than 2 requests within a minute: go on in ")
    told = error["extensions"]
    assert {name: told[name] for name in ("code", "quota", "limit", "used")} == {
        "code": "QUOTA_EXCEEDED",
        "quota": "requestsPerMinute",
        "limit": 2,
        "used": 2,
    }
    assert timezone.now() < datetime.fromisoformat(told["resetsAt"]) <= timezone.now() + timedelta(seconds=121)
    assert rate_headers(answer)["RateLimit-Remaining"] == "0"
    assert answer.headers["Retry-After"] == rate_headers(answer)["RateLimit-Reset"]
    assert answer.json()["data"] is None


def test_no_more_than_those_at_once_and_a_sixth_of_them_come_within_ten_seconds(
    alice: Person, place: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert requests.burst_of(1200).count == 250
    monkeypatch.setattr(requests, "SMALLEST_BURST", 1)
    monkeypatch.setattr(pacing, "SMALLEST_AT_ONCE", 1)
    settings.REQUESTS_PER_MINUTE = 18
    answers = [ask(place, alice.token, TYPE) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429]
    assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["17", "16", "15", "14", "0"]
    (error,) = answers[4].json()["errors"]
    assert error["message"].startswith("More than 4 requests within ten seconds: go on in ")
    told = error["extensions"]
    assert (told["quota"], told["limit"], told["used"]) == ("requestsPerTenSeconds", 4, 4)
    assert rate_headers(answers[4])["RateLimit-Limit"] == "4"
    assert 1 <= int(answers[4].headers["Retry-After"]) <= 20


def test_a_small_rate_may_be_used_at_once(alice: Person, place: str, settings: Any) -> None:
    settings.REQUESTS_PER_MINUTE = 60
    assert [ask(place, alice.token, TYPE).status_code for _ in range(61)] == [200] * 60 + [429]


def test_users_do_not_share_a_rate_and_the_keys_of_an_organization_do(
    alice: Person, bob: Person, charlie: Person, place: str, settings: Any
) -> None:
    keys, foreign = [make_key(alice), make_key(alice)], make_key(charlie)
    settings.REQUESTS_PER_MINUTE = 2
    statuses = [ask(place, bearer, TYPE).status_code for bearer in [*keys, *keys]]
    assert statuses == [200, 200, 429, 429]
    for bearer in (alice.token, bob.token, foreign):
        assert [ask(place, bearer, TYPE).status_code for _ in range(3)] == [200, 200, 429]


def test_an_operator_sets_another_rate_for_an_organization(
    alice: Person, charlie: Person, place: str, settings: Any
) -> None:
    key = make_key(alice)
    with operator():
        Quota.objects.create(organization=alice.organization, requests_per_minute=3)
    settings.REQUESTS_PER_MINUTE = 1
    for bearer, rate in ((alice.token, 3), (key, 3), (charlie.token, 1)):
        answers = [ask(place, bearer, TYPE) for _ in range(rate + 1)]
        assert [answer.status_code for answer in answers] == [200] * rate + [429]
        assert {answer.headers["RateLimit-Limit"] for answer in answers} == {str(rate)}


def test_the_highest_rate_that_was_set_for_any_of_somebodys_organizations_is_theirs(
    alice: Person, charlie: Person, place: str, settings: Any
) -> None:
    with operator():
        Membership.objects.create(organization=charlie.organization, user=alice.user)
        Quota.objects.create(organization=alice.organization, requests_per_minute=1)
    settings.REQUESTS_PER_MINUTE = 3
    assert [ask(place, alice.token, TYPE).status_code for _ in range(2)] == [200, 429], (
        "not the other's, which has none"
    )
    with operator():
        Quota.objects.create(organization=charlie.organization, requests_per_minute=2)
    assert [ask(place, alice.token, TYPE).status_code for _ in range(3)] == [200, 200, 429]


def test_who_is_not_signed_in_shares_with_their_address_also_where_they_try_tokens(
    db: None, place: str, settings: Any
) -> None:
    settings.REQUESTS_PER_MINUTE = 3
    bearers = [None, "guessed", f"ftk_{uuid4().hex}", "guessed again", None]
    assert [ask(place, bearer, TYPE).status_code for bearer in bearers] == [200, 401, 401, 429, 429]
    assert ask(f"{place[:-1]}2", None, TYPE).status_code == 429, "the same customer's"
    assert ask(somewhere(), None, TYPE).status_code == 200


def test_nobody_is_held_to_a_rate_that_redis_does_not_count(alice: Person, place: str, settings: Any) -> None:
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    settings.REQUESTS_PER_MINUTE = 1
    answers = [ask(place, alice.token) for _ in range(3)]
    assert [(answer.status_code, rate_headers(answer)) for answer in answers] == [(200, {})] * 3


@pytest.mark.django_db(transaction=True)
def test_streams_and_sockets_count_too(settings: Any) -> None:
    ada = make_person(f"ada-{uuid4().hex}")
    run = make_run(ada)
    settings.REQUESTS_PER_MINUTE = 2
    body = {"query": WATCH, "variables": {"id": global_id(run)}}

    def by_stream(url: str) -> tuple[int, Any]:
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {ada.token}"}
        with httpx.stream("POST", f"{url}/graphql/stream", json=body, headers=headers, trust_env=False) as answer:
            return answer.status_code, answer.headers.get("ratelimit-remaining")

    async def by_socket(url: str) -> list[Any]:
        async with socket(url) as opened:
            await greet(opened, ada.token)
            heard = []
            for number in ("1", "2"):
                await tell(opened, id=number, type="subscribe", payload=body)
                heard.append(await hear(opened))
            return heard

    with operator():
        type(run).objects.filter(pk=run.pk).update(status="CANCELLED")
    with serving() as url:
        assert by_stream(url) == (200, "1")
        first, second = asyncio.run(by_socket(url))
        assert by_stream(url) == (429, "0")
    assert first["id"] == "1" and first["type"] != "error"
    assert (second["id"], second["type"]) == ("2", "error")
    assert second["payload"][0]["extensions"]["quota"] == "requestsPerMinute"
