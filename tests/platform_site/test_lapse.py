"""Live subscriptions end within five seconds of the right to them, over websockets and as server-sent events."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import tokens
from accounts.models import ApiKey, Membership, RefreshToken, Role, User
from accounts.principals import principal_of
from accounts.standing import still_stand
from common.tenancy import Principal, operator
from common.threads import in_thread
from platform_site import lapse
from tests.cast import Person, make_person
from tests.rows import global_id, make_run
from tests.sockets import code_at_the_end, greet, hear, socket, tell
from tests.web import serving
from training.models import TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)

EVENTS = "subscription ($id: ID!) { trainingRunEvents(id: $id) { sequence } }"
WITHIN_S = 5.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def alice() -> Person:
    return make_person("Alice")


@pytest.fixture
def run(alice: Person) -> TrainingRun:
    return make_run(alice)


def session(person: Person, lives: timedelta = timedelta(minutes=10)) -> tuple[str, Principal]:
    """Another session of a person, and who its access token speaks for."""
    with operator(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens._AccessToken, "lifetime", lives)
        token = tokens.issue_session(person.user).access_token
    return token, principal_of(token)


def revoke_session(principal: Principal) -> None:
    with operator():
        RefreshToken.objects.filter(family=principal.session).update(revoked_at=timezone.now())


def deactivate(person: Person) -> None:
    with operator():
        User.objects.filter(pk=person.user.pk).update(is_active=False)


def remove(person: Person) -> None:
    with operator():
        Membership.objects.filter(user=person.user).delete()


def demote(person: Person) -> None:
    with operator():
        Membership.objects.filter(user=person.user).update(role=Role.VIEWER)


Deed = Callable[[], None]


def sessions_and_what_ends_them(alice: Person) -> dict[str, tuple[str, Deed]]:
    """For each way that a right ends: a token, and what is done to it. Alice has one that stays."""
    bob, carol, dan, erin = (
        make_person(name, alice.organization, Role.MEMBER) for name in ("Bob", "Carol", "Dan", "Erin")
    )
    logged_out, who = session(alice)
    return {
        "expiry": (session(alice, timedelta(seconds=3))[0], lambda: None),
        "logout": (logged_out, lambda: revoke_session(who)),
        "deactivation": (bob.token, lambda: deactivate(bob)),
        "removal": (carol.token, lambda: remove(carol)),
        "another role": (dan.token, lambda: demote(dan)),
        "everywhere": (erin.token, lambda: revoke_everywhere(erin)),
    }


def revoke_everywhere(person: Person) -> None:
    with operator():
        tokens.revoke_all(person.user)


class SocketWatch:
    def __init__(self, opened: Any) -> None:
        self.opened = opened

    async def end(self) -> tuple[int | None, str]:
        await self.opened.wait_closed()
        return self.opened.close_code, self.opened.close_reason

    async def is_live(self) -> bool:
        await tell(self.opened, type="ping")
        return await hear(self.opened) == {"type": "pong"}


@asynccontextmanager
async def by_socket(url: str, token: str, run: TrainingRun) -> AsyncIterator[SocketWatch]:
    async with socket(url) as opened:
        await greet(opened, token)
        payload = {"query": EVENTS, "variables": {"id": global_id(run)}}
        await tell(opened, id="1", type="subscribe", payload=payload)
        watch = SocketWatch(opened)
        assert await watch.is_live()
        yield watch


class StreamWatch:
    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer

    async def end(self) -> list[str]:
        return [line async for line in self.answer.aiter_lines() if line and not line.startswith(":")]


@asynccontextmanager
async def by_stream(url: str, token: str, run: TrainingRun) -> AsyncIterator[StreamWatch]:
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {token}"}
    body = {"query": EVENTS, "variables": {"id": global_id(run)}}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
        client.stream("POST", f"{url}/graphql/stream", json=body, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        yield StreamWatch(answer)


async def ends(url: str, alice: Person, run: TrainingRun, way: Any) -> dict[str, Any]:
    """What each watcher heard at the end, having asserted that it came in time."""
    deeds = await in_thread(lambda: sessions_and_what_ends_them(alice))
    async with AsyncExitStack() as stack:
        watchers = {why: await stack.enter_async_context(way(url, token, run)) for why, (token, _) in deeds.items()}
        stays = await stack.enter_async_context(way(url, alice.token, run))
        staying = asyncio.create_task(stays.end())
        began = time.monotonic()
        for _, deed in deeds.values():
            await in_thread(deed)
        expires_after_s = 3.0
        heard = {}
        for why, watcher in watchers.items():
            left_s = began + WITHIN_S + expires_after_s * (why == "expiry") - time.monotonic()
            heard[why] = await asyncio.wait_for(watcher.end(), max(left_s, 0.01))
        assert not staying.done()
        staying.cancel()
        if isinstance(stays, SocketWatch):
            assert await stays.is_live()
    return heard


def test_a_socket_closes_with_4403_once_its_right_has_ended(url: str, alice: Person, run: TrainingRun) -> None:
    heard = asyncio.run(ends(url, alice, run, by_socket))
    assert heard.pop("expiry") == (4403, "The access token has expired")
    assert heard == dict.fromkeys(heard, (4403, "The right to this has ended")) and len(heard) == 5


def test_a_stream_ends_with_unauthenticated_once_its_right_has_ended(url: str, alice: Person, run: TrainingRun) -> None:
    def lines(reason: str) -> list[str]:
        error = {"message": f"{reason}.", "extensions": {"code": "UNAUTHENTICATED"}}
        return ["event: next", f"data: {json.dumps({'data': None, 'errors': [error]})}", "event: complete", "data: "]

    heard = asyncio.run(ends(url, alice, run, by_stream))
    assert heard.pop("expiry") == lines("The access token has expired")
    assert heard == dict.fromkeys(heard, lines("The right to this has ended")) and len(heard) == 5


def test_what_ends_a_right_and_what_does_not(alice: Person) -> None:
    bob = make_person("Bob", alice.organization, Role.MEMBER)
    charlie = make_person("Charlie")
    with operator():
        key = ApiKey.objects.create(
            organization=alice.organization, name="ci", prefix="x", secret_sha256="x", role=Role.MEMBER
        )
        gone = ApiKey.objects.create(
            organization=alice.organization,
            name="old",
            prefix="y",
            secret_sha256="y",
            role=Role.MEMBER,
            revoked_at=timezone.now(),
        )
        Membership.objects.create(organization=charlie.organization, user=bob.user)  # more than before
    alices, bobs = principal_of(alice.token), principal_of(bob.token)
    of_key = Principal(user_id=None, key_id=key.pk, roles={alice.organization.pk: "MEMBER"})
    asked = [
        (alices, True),
        (replace(bobs, roles={alice.organization.pk: "MEMBER"}), True),
        (replace(bobs, roles={alice.organization.pk: "OWNER"}), False),
        (replace(bobs, roles={uuid4(): "MEMBER"}), False),
        (replace(alices, session=uuid4()), False),
        (replace(alices, session=None), True),
        (replace(alices, user_id=uuid4()), False),
        (of_key, True),
        (replace(of_key, roles={alice.organization.pk: "OWNER"}), False),
        (replace(of_key, key_id=gone.pk), False),
    ]
    assert still_stand([principal for principal, _ in asked]) == [stands for _, stands in asked]
    with CaptureQueriesContext(connection) as queries:
        still_stand([principal for principal, _ in asked] * 100)
    assert len([query for query in queries if query["sql"].startswith('SELECT "')]) == 3


def test_tokens_run_out_while_the_database_is_away(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(principals: Any) -> list[bool]:
        raise OperationalError("the database is away")

    monkeypatch.setattr(lapse, "still_stand", away)
    now = timezone.now()
    expired = Principal(user_id=uuid4(), expires_at=now)
    good = replace(expired, expires_at=now + timedelta(minutes=1))

    async def scenario() -> list[str]:
        heard: list[str] = []
        connections = [lapse.end_when_lapsed(principal, heard.append) for principal in (good, expired)]
        with pytest.raises(OperationalError):
            await lapse._look()
        for live in connections:
            lapse.forget(live)
        return heard

    assert asyncio.run(scenario()) == ["The access token has expired"]


def test_tokens_run_out_while_the_database_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(lapse, "still_stand", lambda principals: [answers.wait(30)] * len(principals))
    monkeypatch.setattr(lapse, "LOOK_WITHIN_S", 0.1)
    now = timezone.now()
    good = Principal(user_id=uuid4(), expires_at=now + timedelta(minutes=1))
    expiring = replace(good, expires_at=now + timedelta(seconds=1))

    async def scenario() -> list[str]:
        heard: list[str] = []
        connections = [lapse.end_when_lapsed(principal, heard.append) for principal in (good, expiring)]
        try:
            while timezone.now() <= expiring.expires_at + timedelta(seconds=0.1):  # type: ignore[operator]
                with pytest.raises(TimeoutError):
                    await lapse._look()
        finally:
            answers.set()
            for live in connections:
                lapse.forget(live)
        return heard

    assert asyncio.run(scenario()) == ["The access token has expired"]


def test_one_person_has_so_many_connections_and_no_more(
    url: str, alice: Person, run: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lapse, "MAX_CONNECTIONS", 1)
    zoe = make_person("Zoe", alice.organization, Role.MEMBER)

    async def talk() -> tuple[int, list[str]]:
        async with by_socket(url, alice.token, run), socket(url) as second:
            await tell(second, type="connection_init", payload={"authorization": f"Bearer {alice.token}"})
            code = await code_at_the_end(second)
            async with by_stream(url, alice.token, run) as third, by_stream(url, zoe.token, run):
                return code, await third.end()

    code, streamed = asyncio.run(talk())
    assert code == 1008
    assert "TOO_MANY_CONNECTIONS" in str(streamed)
    asyncio.run(talk())  # those that have ended count no more
