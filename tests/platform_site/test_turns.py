"""Those who ask take turns: a flood is late, and turns its own away; whoever comes beside it is hardly kept."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from platform_site.turns import Asker, Spent, Turn, Turns

NOISY: Asker = (b"noisy", "")


def person(number: int) -> Asker:
    return (b"person %d" % number, "")


class Line:
    """Who waits for a turn, and who has got one, in their order."""

    def __init__(self, threads: int, at_work: int) -> None:
        self.turns = Turns(threads, at_work)
        self.got: list[Asker] = []
        self.held: list[tuple[Asker, Turn]] = []
        self.refused: Counter[Asker] = Counter()

    async def come(self, *askers: Asker) -> list[asyncio.Task[None]]:
        tasks = []
        for asker in askers:
            tasks.append(asyncio.create_task(self._wait(asker)))
            for _ in range(3):  # each after the one before, and what comes of it
                await asyncio.sleep(0)
        return tasks

    async def _wait(self, asker: Asker) -> None:
        try:
            turn = await self.turns.take(asker)
        except Spent:
            self.refused[asker] += 1
            return
        self.got.append(asker)
        self.held.append((asker, turn))

    async def end_first(self) -> None:
        self.held.pop(0)[1].end()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def end_all(self) -> None:
        while self.held:
            await self.end_first()


async def test_they_start_in_turns_and_each_ones_own_in_their_order() -> None:
    line = Line(threads=8, at_work=1)
    await line.come(NOISY, NOISY, NOISY, NOISY, person(1), person(2), person(1))
    assert line.got == [NOISY]
    await line.end_all()
    assert line.got == [NOISY, NOISY, person(1), person(2), NOISY, person(1), NOISY]


async def test_a_place_stays_for_whoever_comes_next() -> None:
    line = Line(threads=8, at_work=4)
    await line.come(*[NOISY] * 5)
    assert line.got == [NOISY] * 2
    await line.come(person(1))
    assert line.got == [NOISY, NOISY, person(1)], "before the flood's third"
    await line.end_first()
    assert line.got[3:] == [NOISY]


async def test_a_place_that_is_lent_goes_on_to_the_next_and_the_thread_does_not() -> None:
    line = Line(threads=4, at_work=1)
    await line.come(NOISY, NOISY, NOISY, NOISY, person(1))
    for _ in range(3):
        line.held[-1][1].lend()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert line.got == [NOISY, person(1), NOISY, NOISY], "each of whom waits for something"
    line.held[-1][1].lend()
    await line.come(person(2))
    assert not line.turns.has_free_thread
    assert person(2) not in line.got
    await line.end_first()
    assert line.got[4:] == [person(2)], "not the flood's fourth, which came before"


async def test_nobody_alone_has_all_threads() -> None:
    line = Line(threads=8, at_work=8)
    await line.come(*[NOISY] * 8)
    for _, turn in line.held:
        turn.lend()
    for _ in range(8):
        await asyncio.sleep(0)
        for _, turn in list(line.held):
            turn.lend()
    assert line.got == [NOISY] * 6
    await line.come(person(1), person(2))
    assert line.got[6:] == [person(1), person(2)]
    assert not line.turns.has_free_thread


async def test_where_the_line_is_full_whoever_has_most_in_it_loses_the_newest() -> None:
    line = Line(threads=2, at_work=1)
    await line.come(*[NOISY] * 6)
    assert line.refused == {NOISY: 2}, "one is at work, and three wait"
    assert not line.turns.are_spent
    await line.come(person(1), person(2))
    assert line.refused == {NOISY: 4}
    assert line.turns.are_spent
    await line.come(person(3))
    assert line.refused == {NOISY: 4, person(3): 1}, "three wait, one of each"
    await line.end_all()
    assert line.got == [NOISY, NOISY, person(1), person(2)]


async def test_whoever_has_two_in_a_full_line_loses_one_to_whoever_has_none() -> None:
    line = Line(threads=2, at_work=1)
    await line.come(person(1), person(2), person(2), person(3), person(4))
    assert line.refused == {person(2): 1}
    await line.end_all()
    assert line.got == [person(1), person(2), person(3), person(4)]


async def test_whoever_goes_away_leaves_no_gap_and_takes_nothing_along() -> None:
    line = Line(threads=4, at_work=1)
    tasks = await line.come(person(1), person(2), person(3), person(4))
    tasks[1].cancel()
    line.held.pop()[1].end()  # to the second, whose end comes at the same moment
    tasks[2].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert line.got == [person(1), person(4)]
    await line.end_all()
    assert line.turns._free_threads == 4 and line.turns._free_places == 1


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_is_lost_however_they_come_and_go(seed: int) -> None:
    """Threads and places are as many afterwards, and nobody who can be served waits."""
    chance = random.Random(seed)
    threads, at_work = chance.randint(1, 8), chance.randint(1, 4)
    line = Line(threads, at_work)
    waiting: list[asyncio.Task[None]] = []
    for _ in range(400):
        what = chance.random()
        if what < 0.45:
            waiting += await line.come(person(min(chance.randrange(6), chance.randrange(6))))
        elif what < 0.55 and waiting:
            waiting.pop(chance.randrange(len(waiting))).cancel()
        elif what < 0.7 and line.held:
            chance.choice(line.held)[1].lend()
        elif line.held:
            line.held.pop(chance.randrange(len(line.held)))[1].end()
        if chance.random() < 0.7:
            await asyncio.sleep(0)
        assert 0 <= line.turns._free_threads <= threads
        assert 0 <= line.turns._free_places <= at_work
    for _ in range(400):
        await asyncio.sleep(0)
        while line.held:
            line.held.pop()[1].end()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (line.turns._free_threads, line.turns._free_places) == (threads, at_work)
    assert not line.turns._line and not line.turns._in_hand and not line.turns._at_work
