"""Whoever asks faster than they may is slowed down, by all web processes together; who does not is not."""

from __future__ import annotations

import time
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from platform_site.limits import pacing
from platform_site.limits.pacing import AT_ONCE, LATE, MOST_DELAY_S, Paces, TooFast, pace
from platform_site.limits.requests import burst_of
from tests.cast import make_person
from tests.web import serving

ALICE, BOB = (b"Bearer a", "192.0.2.1"), (b"Bearer b", "192.0.2.1")
A_MINUTE = 1320
"""Twenty a second, and those that come at once."""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def paces(tmp_path: Path, clock: Clock) -> Paces:
    return Paces(tmp_path / "run" / "paces", b"secret", clock)


def delays(paces: Paces, count: int, asker: tuple[bytes, str] = ALICE, usual: int = A_MINUTE) -> list[float]:
    return [round(paces.delay_s(asker, usual), 6) for _ in range(count)]


def test_the_first_come_at_once_and_the_others_at_their_rate(paces: Paces, clock: Clock) -> None:
    assert delays(paces, AT_ONCE) == [0.0] * AT_ONCE
    assert delays(paces, 4) == [0.05, 0.1, 0.15, 0.2]
    assert delays(paces, 2, BOB) == [0.0, 0.0]
    clock.now += 1.0  # twenty of them, of which four were taken
    assert delays(paces, 17) == [0.0] * 16 + [0.05]
    clock.now += 60.0
    assert delays(paces, AT_ONCE + 1)[-1] == 0.05


def test_who_would_wait_too_long_is_told_so_and_it_counts_for_nothing(paces: Paces, clock: Clock) -> None:
    assert delays(paces, AT_ONCE + 20)[-1] == MOST_DELAY_S
    for _ in range(3):
        with pytest.raises(TooFast) as told:
            paces.delay_s(ALICE, A_MINUTE)
        assert told.value.per_minute == A_MINUTE
    clock.now += 0.05
    assert delays(paces, 1) == [MOST_DELAY_S]


@pytest.mark.parametrize("per_minute", [220, 250, 1200, A_MINUTE, 6000])
def test_a_program_that_waits_for_its_answers_stays_below_what_redis_allows(
    paces: Paces, clock: Clock, per_minute: int
) -> None:
    begun, served = clock.now, list[float]()
    while clock.now < begun + 150:
        clock.now += paces.delay_s(ALICE, per_minute) + 0.001
        served.append(clock.now)
        in_ten_seconds, in_a_minute = (len(served) - bisect_right(served, clock.now - back) for back in (10, 60))
        assert in_ten_seconds <= burst_of(per_minute).count - LATE // 6
        assert in_a_minute <= per_minute - LATE + 1
    assert in_a_minute >= 60 * pace(per_minute) - 1


def test_processes_count_together(paces: Paces, clock: Clock, tmp_path: Path) -> None:
    other = Paces(tmp_path / "run" / "paces", b"secret", clock)
    assert delays(paces, AT_ONCE // 2) + delays(other, AT_ONCE // 2) == [0.0] * AT_ONCE
    assert (delays(other, 1), delays(paces, 1)) == ([0.05], [0.1])


def test_an_answer_tells_what_somebody_may_do(paces: Paces) -> None:
    delays(paces, AT_ONCE)
    paces.learn(ALICE, 60)
    assert delays(paces, 1) == [1.0]
    with pytest.raises(TooFast) as told:
        delays(paces, 1)
    assert told.value.per_minute == 60
    paces.learn(ALICE, 60_120)  # a thousand a second
    assert delays(paces, 3) == [0.002, 0.003, 0.004]
    paces.learn(BOB, 1)  # of whom nothing is known
    assert delays(paces, AT_ONCE, BOB) == [0.0] * AT_ONCE


@pytest.mark.parametrize("per_minute", [1, 2, 60])
def test_a_small_rate_is_kept_too(paces: Paces, clock: Clock, per_minute: int) -> None:
    assert delays(paces, AT_ONCE, usual=per_minute) == [0.0] * AT_ONCE
    clock.now += 60
    passed = 0
    for _ in range(2 * per_minute):
        try:
            passed += paces.delay_s(ALICE, per_minute) <= MOST_DELAY_S
        except TooFast:
            break
    assert passed == per_minute + (per_minute == 60)  # one a second may wait


def test_two_who_share_a_slot_do_not_slow_each_other_down(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "_SLOTS", 1)
    paces = Paces(tmp_path / "paces", b"secret", clock)
    assert delays(paces, AT_ONCE + 1)[-1] == 0.05
    assert delays(paces, 2 * AT_ONCE, BOB) == [0.0] * 2 * AT_ONCE
    assert delays(paces, 1) == [0.1]
    clock.now += 60  # the slot is nobody's
    assert delays(paces, AT_ONCE + 1, BOB)[-1] == 0.05


def test_what_a_clock_left_that_began_anew_holds_nobody_up(paces: Paces, clock: Clock) -> None:
    clock.now = 1_000_000.0
    delays(paces, AT_ONCE + 10)
    clock.now = 5.0
    assert delays(paces, AT_ONCE) == [0.0] * AT_ONCE


def test_without_room_for_the_file_each_process_has_its_own(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    paces = Paces(tmp_path / "file" / "paces", b"secret", clock)
    assert delays(paces, AT_ONCE + 1)[-1] == 0.05
    assert "Each web process counts for itself who asks too fast" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_flood_is_served_at_its_rate_and_told_so_and_nobody_else_is(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, ben = make_person(f"ada-{uuid4().hex}"), make_person(f"ben-{uuid4().hex}")
    settings.REQUESTS_PER_MINUTE = 1200
    monkeypatch.setattr(pacing, "AT_ONCE", 5)

    def ask(token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(
            f"{site}/graphql", json={"query": "{ __typename }"}, headers=headers, timeout=60, trust_env=False
        )

    with serving() as site, ThreadPoolExecutor(40) as pool:
        begun = time.monotonic()
        answers = list(pool.map(ask, [ada.token] * 40))
        took = time.monotonic() - begun
        assert ask(ben.token).status_code == 200
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(served) + len(refused) == 40
    assert 25 <= len(served) <= 5 + 20 + took * 20 + 1
    assert len(served) == 40 or refused
    for answer in refused:
        (error,) = answer.json()["errors"]
        assert error["message"].startswith("Requests come faster than 1,200 a minute")
        assert (error["extensions"]["code"], error["extensions"]["quota"]) == ("QUOTA_EXCEEDED", "requestsPerMinute")
        assert (answer.headers["Retry-After"], answer.headers["RateLimit-Limit"]) == ("1", "1200")


@pytest.mark.django_db(transaction=True)
def test_a_program_that_waits_for_its_answers_is_never_refused(settings: Any) -> None:
    ada = make_person(f"ada-{uuid4().hex}")
    settings.REQUESTS_PER_MINUTE = 220
    headers = {"Authorization": f"Bearer {ada.token}"}
    with serving() as site, httpx.Client(base_url=site, headers=headers, timeout=60, trust_env=False) as client:
        statuses = [client.post("/graphql", json={"query": "{ __typename }"}).status_code for _ in range(AT_ONCE + 5)]
    assert statuses == [200] * (AT_ONCE + 5)
