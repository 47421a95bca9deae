"""Whoever asks faster than they may is slowed down, by all web processes together; who does not is not."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from bisect import bisect_right
from pathlib import Path

import pytest

from platform_site.askers import Asker, asker_of
from platform_site.limits import excess, pacing
from platform_site.limits.pacing import AT_ONCE, HELD_SHARE, MOST_DELAY_S, Paces, TooFast, at_once
from platform_site.limits.requests import burst_of

ALICE, BOB = (b"bearer a", ""), (b"bearer b", "")
A_MINUTE = 1200
HELD_S = 60 / A_MINUTE / HELD_SHARE
"""Between requests of whoever is held back."""


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


def knows(paces: Paces, per_minute: int = A_MINUTE, asker: Asker = ALICE) -> None:
    """Of a first request and its answer."""
    assert paces.take(asker, per_minute) == 0.0
    paces.learn(asker, per_minute)


def delays(paces: Paces, count: int, asker: Asker = ALICE, usual: int = A_MINUTE) -> list[float]:
    return [round(paces.take(asker, usual), 6) for _ in range(count)]


def steps(first_s: float, count: int, each_s: float = HELD_S) -> list[float]:
    return [round(first_s + number * each_s, 6) for number in range(count)]


@pytest.mark.parametrize(
    ("per_minute", "count"),
    [(1, 1), (2, 2), (20, 20), (60, 20), (240, 20), (300, 25), (599, 49), (600, 50), (60_000, 50)],
)
def test_how_many_come_at_once(paces: Paces, per_minute: int, count: int) -> None:
    assert at_once(per_minute) == count
    knows(paces, per_minute)
    assert delays(paces, count - 1, usual=per_minute) == [0.0] * (count - 1)
    if per_minute < 60:  # the next one would have to wait for longer than a second
        with pytest.raises(TooFast) as found:
            paces.take(ALICE, per_minute)
        assert found.value.wait_s == pytest.approx(60 / per_minute - MOST_DELAY_S)
    else:
        assert 0 < paces.take(ALICE, per_minute) < 60 / per_minute / HELD_SHARE + 1e-6


def test_the_first_come_at_once_and_the_others_at_their_rate(paces: Paces, clock: Clock) -> None:
    knows(paces)
    assert delays(paces, AT_ONCE - 1) == [0.0] * (AT_ONCE - 1)
    assert delays(paces, 4) == steps(0.05, 4)
    assert delays(paces, 2, BOB) == [0.0, 0.0]
    clock.now += 60.0
    assert delays(paces, AT_ONCE + 1)[-2:] == [0.0, 0.05]


def test_who_would_wait_too_long_is_told_when_there_is_room_and_it_counts_for_nothing(
    paces: Paces, clock: Clock
) -> None:
    knows(paces)
    held = delays(paces, AT_ONCE + 17)[AT_ONCE - 1 :]
    assert held == steps(0.05, 18) and held[-1] <= MOST_DELAY_S
    for _ in range(3):
        with pytest.raises(TooFast) as told:
            paces.take(ALICE, A_MINUTE)
        assert (told.value.per_minute, round(told.value.wait_s, 6)) == (A_MINUTE, round(0.05 + 18 * HELD_S - 1, 6))
    clock.now += told.value.wait_s + 1e-9
    assert delays(paces, 1) == [MOST_DELAY_S]


@pytest.mark.parametrize("per_minute", [240, 600, 1200, 1320, 6000])
def test_a_program_that_waits_for_its_answers_stays_below_what_redis_allows(
    paces: Paces, clock: Clock, per_minute: int
) -> None:
    knows(paces, per_minute)
    begun, served = clock.now, [clock.now]
    while clock.now < begun + 150:
        clock.now += paces.take(ALICE, per_minute) + 0.001
        served.append(clock.now)
        in_ten_seconds, in_a_minute = (len(served) - bisect_right(served, clock.now - back) for back in (10, 60))
        assert in_ten_seconds < burst_of(per_minute).count
        assert in_a_minute <= per_minute * 0.985 + 1  # the rest is what Redis counts up to a second late
    assert in_a_minute >= HELD_SHARE * per_minute - 1


@pytest.mark.parametrize("per_minute", [60, 220, 600, 1200])
def test_whoever_stays_within_their_rate_is_neither_held_back_nor_refused(
    paces: Paces, clock: Clock, per_minute: int
) -> None:
    """Whether they wait for their answers or not."""
    knows(paces, per_minute)
    for _ in range(20 * per_minute):
        clock.now += 60 / per_minute * 1.01
        assert paces.take(ALICE, per_minute) == 0.0


def test_processes_count_together(paces: Paces, clock: Clock, tmp_path: Path) -> None:
    knows(paces)
    other = Paces(tmp_path / "run" / "paces", b"secret", clock)
    assert delays(paces, AT_ONCE // 2 - 1) + delays(other, AT_ONCE // 2) == [0.0] * (AT_ONCE - 1)
    assert delays(other, 1) + delays(paces, 1) == steps(0.05, 2)


def test_an_answer_tells_what_somebody_may_do(paces: Paces) -> None:
    knows(paces)
    delays(paces, AT_ONCE)
    paces.learn(ALICE, 60)  # of fifty that are ahead, as many as may wait
    with pytest.raises(TooFast) as told:
        delays(paces, 3)
    assert told.value.per_minute == 60 and told.value.wait_s <= 3
    paces.learn(ALICE, 60_000)
    assert delays(paces, 5) == [0.0] * 5
    paces.learn(BOB, 1)  # of whom nothing is known
    assert delays(paces, AT_ONCE, BOB) == [0.0] * AT_ONCE


def test_a_lowered_rate_holds_nobody_up_for_longer_than_itself(paces: Paces, clock: Clock) -> None:
    knows(paces, 6000)
    with pytest.raises(TooFast):
        delays(paces, 1000, usual=6000)
    paces.learn(ALICE, 600)
    clock.now += 2 / (600 / 60 * HELD_SHARE) + 0.001
    assert delays(paces, 1)[0] <= MOST_DELAY_S


def test_whose_rate_is_not_known_is_held_back_and_not_refused(paces: Paces, clock: Clock) -> None:
    assert delays(paces, AT_ONCE) == [0.0] * AT_ONCE
    held = delays(paces, 60)
    assert held[:18] == steps(0.05, 18) and set(held[20:]) == {MOST_DELAY_S}
    clock.now += 1.0
    assert delays(paces, 1)[0] < 0.2


@pytest.mark.parametrize(("left", "now"), [(1_000_000.0, 5.0), (3600.0, 60.0), (3600.0, 3599.0), (1000.0, 2000.0)])
def test_what_another_clock_left_holds_nobody_up(paces: Paces, clock: Clock, left: float, now: float) -> None:
    """A host that was started anew, or two that share the file against all advice."""
    clock.now = left
    knows(paces)
    delays(paces, AT_ONCE + 10)
    clock.now = now
    begun = clock.now
    while True:
        try:
            clock.now += paces.take(ALICE, A_MINUTE)
        except TooFast as found:
            clock.now += found.wait_s
        else:
            break
    assert clock.now - begun < 7


def test_two_who_share_a_slot_do_not_slow_each_other_down(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "_SLOTS", 1)
    paces = Paces(tmp_path / "paces", b"secret", clock)
    knows(paces)
    assert delays(paces, AT_ONCE)[-1] == 0.05
    assert delays(paces, 2 * AT_ONCE, BOB) == [0.0] * 2 * AT_ONCE
    assert delays(paces, 1) == steps(0.05 + HELD_S, 1)
    clock.now += 60  # the slot is nobody's
    assert delays(paces, AT_ONCE + 1, BOB)[-1] == 0.05


@pytest.mark.parametrize("per_minute", [1, 10, 60, 1200])
def test_a_slot_stays_whose_it_is_for_as_long_as_they_are_over_their_rate(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, per_minute: int
) -> None:
    monkeypatch.setattr(pacing, "_SLOTS", 1)
    paces = Paces(tmp_path / "paces", b"secret", clock)
    knows(paces, per_minute)
    while paces.look(ALICE) is None:
        paces.take(ALICE, per_minute)
    assert delays(paces, 3, BOB) == [0.0] * 3
    assert paces.look(ALICE) is not None


def test_without_room_for_the_file_each_process_has_its_own(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    paces = Paces(tmp_path / "file" / "paces", b"secret", clock)
    assert delays(paces, AT_ONCE + 1)[-1] == 0.05
    assert "Each web process counts for itself who asks too fast" in caplog.text


def taken(paces: Paces) -> TooFast | None:
    try:
        paces.take(ALICE, A_MINUTE)
    except TooFast as found:
        return found
    return None


def test_to_look_says_what_to_take_would_raise_and_counts_nothing(paces: Paces, clock: Clock) -> None:
    assert paces.look(ALICE) is None  # whose rate is not known
    knows(paces)
    raised = 0
    for _ in range(3 * AT_ONCE):
        seen = [paces.look(ALICE) for _ in range(3)]
        found = taken(paces)
        raised += found is not None
        assert [each and each.args for each in seen] == [found and found.args] * 3
        clock.now += 0.001
    assert 50 < raised < 2 * AT_ONCE
    assert paces.look(BOB) is None


def answered_a_minute(paces: Paces, clock: Clock, asked_a_minute: int) -> int:
    """Of whoever asks evenly, and does not heed refusals, in the minute after their first."""
    knows(paces)
    answered = 0
    for number in range(2 * asked_a_minute):
        if refused := taken(paces):
            paces.charge(ALICE, refused)
        else:
            answered += number >= asked_a_minute
        clock.now += 60 / asked_a_minute
    return answered


@pytest.mark.parametrize(
    ("times", "of_their_rate"),
    [(1, 1.0), (1.5, 0.852), (2, 0.811), (4, 0.649), (8, 0.333), (10, 0.176), (12, 0.048), (100, 0.048)],
)
def test_who_does_not_heed_refusals_has_less_of_their_rate(
    paces: Paces, clock: Clock, times: float, of_their_rate: float
) -> None:
    answered = answered_a_minute(paces, clock, int(times * A_MINUTE))
    assert answered / A_MINUTE == pytest.approx(of_their_rate, abs=0.005)


@pytest.mark.parametrize("per_minute", [1, 10, 60, 1200])
def test_who_has_been_refused_often_waits_as_long_as_they_are_told(paces: Paces, clock: Clock, per_minute: int) -> None:
    knows(paces, per_minute)
    while not (refused := paces.look(ALICE)):
        paces.take(ALICE, per_minute)
    for _ in range(100):
        refused = paces.charge(ALICE, refused)
        assert paces.look(ALICE) is not None
    assert refused.wait_s < 2.2 * 60 / per_minute
    clock.now += refused.wait_s + 1e-6
    assert paces.look(ALICE) is None
    assert paces.take(ALICE, per_minute) <= MOST_DELAY_S


@pytest.mark.parametrize(
    ("per_minute", "programs", "at_least"), [(1, 2, 0.89), (10, 3, 0.89), (60, 20, 0.84), (240, 50, 0.72)]
)
def test_programs_that_heed_refusals_do_not_lock_each_other_out(
    paces: Paces, clock: Clock, per_minute: int, programs: int, at_least: float
) -> None:
    """With one token: each asks again when it was told to, or once it has its answer."""
    knows(paces, per_minute)
    chance = random.Random(per_minute)
    begun, answered = clock.now, 0
    due = [(begun + chance.random() / 20, number) for number in range(programs)]
    heapq.heapify(due)
    while due[0][0] < begun + 1260:
        clock.now, number = heapq.heappop(due)
        try:
            again = clock.now + paces.take(ALICE, per_minute) + 0.01
            answered += clock.now > begun + 60
        except TooFast as found:
            told = math.ceil(max(1.0, paces.charge(ALICE, found).wait_s))
            again = clock.now + told + chance.random() / 20
        heapq.heappush(due, (again, number))
    assert answered / 20 / per_minute >= at_least


def test_a_rate_that_is_raised_is_noticed_by_whoever_asks_far_too_often(paces: Paces, clock: Clock) -> None:
    answered_a_minute(paces, clock, 15 * A_MINUTE)
    for _ in range(4 * 60):
        clock.now += 1 / 240
        if refused := taken(paces):
            paces.charge(ALICE, refused)
        else:
            paces.learn(ALICE, 60_000)  # what the answer says
    assert [taken(paces) for _ in range(20)] == [None] * 20


def test_a_flood_does_not_get_away_between_two_processes_clocks(paces: Paces, clock: Clock) -> None:
    knows(paces)
    while not (refused := paces.look(ALICE)):
        paces.take(ALICE, A_MINUTE)
    for _ in range(1_000):
        paces.charge(ALICE, refused)
    clock.now -= 0.05  # another process has looked at its own a moment before
    assert paces.look(ALICE) is not None


def test_each_refusal_is_charged_at_the_door_and_behind_it(
    paces: Paces, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excess, "paces", paces)
    knows(paces)
    while not (refused := paces.look(ALICE)):
        paces.take(ALICE, A_MINUTE)
    clock.now += 0.03  # nobody is charged for more than a request ahead
    refused = paces.look(ALICE)
    assert refused and excess.refusal_of(ALICE) is not None
    charged = paces.look(ALICE)
    assert charged and charged.wait_s == pytest.approx(refused.wait_s + 1 / 240)
    assert asyncio.run(excess.hold_back(ALICE)) is not None
    charged = paces.look(ALICE)
    assert charged and charged.wait_s == pytest.approx(refused.wait_s + 2 / 240)


def test_a_refusal_costs_nobody_else(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_SLOTS", 1)
    paces = Paces(tmp_path / "paces", b"secret", clock)
    knows(paces)
    before = delays(paces, AT_ONCE)[-1]
    told = TooFast(A_MINUTE, 0.5)
    assert paces.charge(BOB, told) is told
    assert delays(paces, 1) == steps(before + HELD_S, 1)


def test_the_same_credentials_are_the_same_asker() -> None:
    def asker(authorization: bytes | None, client: tuple[str, int] | None = ("192.0.2.1", 1)) -> Asker:
        return asker_of({"headers": [(b"authorization", authorization)] if authorization else [], "client": client})

    spelled = [b"Bearer a", b"bearer a", b"BEARER   a  ", b"Bearer \xa0a"]
    assert {asker(each) for each in spelled} == {ALICE}
    assert {asker(b"Bearer a", (host, 1)) for host in ("192.0.2.1", "192.0.2.2", "2001:db8::1")} == {ALICE}
    assert asker(b"Bearer b") == BOB
    assert asker(None) == (b"", "192.0.2.1") != asker(None, ("192.0.2.2", 1))
    assert asker(None, ("2001:db8::1", 1)) == asker(None, ("2001:db8::2", 1)) == (b"", "2001:db8::/64")
    assert asker(None, None) == asker(None, ("unix", 1)) == (b"", "unknown")
