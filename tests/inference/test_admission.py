"""Who is next at the model: turns by organization, deadlines, and lines that are full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from inference.engine.errors import EngineError
from inference.engine.scheduler import shutting_down
from inference.server.admission import Admission, Turn
from inference.server.http import Disconnected

LONG_S = 60.0


@dataclass
class Line:
    """Requests by organization, and who got their turn, in the order in which they got it."""

    admission: Admission
    started: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def ask(self, *owners: str, patience_s: float = LONG_S, tokens: int = 0) -> asyncio.Future[None]:
        """Have them ask, one after the other; the last one's sign that whoever asked has gone."""
        for owner in owners:
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.tasks.append(asyncio.create_task(self._wait(owner, patience_s, gone, tokens)))
            await settled()
        return gone

    async def _wait(self, owner: str, patience_s: float, gone: asyncio.Future[None], tokens: int) -> None:
        try:
            deadline = asyncio.get_running_loop().time() + patience_s
            turn = await self.admission.take(owner, deadline, gone, tokens)
        except EngineError as error:
            self.refused.append((owner, error.code))
        except Disconnected:
            self.refused.append((owner, "gone"))
        else:
            self.started.append(owner)
            self.turns.append(turn)

    async def end(self, number: int = 1) -> None:
        """The oldest at work end, one after the other."""
        for _ in range(number):
            self.turns.pop(0).end()
            await settled()


async def settled() -> None:
    """Whatever can go on has gone on."""
    for _ in range(6):
        await asyncio.sleep(0)


@pytest.fixture
async def one() -> AsyncIterator[Line]:
    """A line before a single place."""
    line = Line(Admission(places=1, waiting=100))
    yield line
    for task in line.tasks:
        task.cancel()


async def test_organizations_take_turns_however_many_one_of_them_asks(one: Line) -> None:
    await one.ask(*"aaaaaaaa", "b", "c", "b")
    assert one.started == ["a"]
    await one.end(10)
    assert one.started == [*"aabcabaaaaa"]


async def test_whoever_has_least_at_work_is_next() -> None:
    line = Line(Admission(places=3, waiting=100))
    await line.ask(*"aaaaaab")
    assert line.started == ["a", "a", "a"]
    await line.end()
    assert line.started[3:] == ["b"]
    await line.ask("b", "c")
    await line.end()  # of a, which has one left at work, as b has: c has none
    assert line.started[4:] == ["c"]


async def test_a_quarter_of_the_places_is_kept_for_others() -> None:
    line = Line(Admission(places=8, waiting=100))
    await line.ask(*"a" * 20)
    assert line.started == ["a"] * 6
    await line.ask("b", "c", "d")
    assert line.started == [*"aaaaaabc"]
    assert line.admission.of_each() == {"a": (6, 14), "b": (1, 0), "c": (1, 0), "d": (0, 1)}
    await line.end()
    assert line.started[8:] == ["d"]


@pytest.mark.parametrize(("places", "of_one"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6)])
async def test_where_places_are_few_one_may_have_them_all(places: int, of_one: int) -> None:
    line = Line(Admission(places=places, waiting=100))
    await line.ask(*"a" * 10)
    assert len(line.started) == of_one


@pytest.fixture
async def roomy() -> AsyncIterator[Line]:
    """Places for eight, and room for a hundred tokens."""
    line = Line(Admission(places=8, waiting=100, room=lambda: 100))
    yield line
    for task in line.tasks:
        task.cancel()


async def test_a_quarter_of_the_room_is_kept_for_others(roomy: Line) -> None:
    await roomy.ask(*"aaa", tokens=30)
    assert roomy.started == ["a", "a"]
    await roomy.ask("b", "c", tokens=25)
    assert roomy.started == ["a", "a", "b"]
    await roomy.end()
    assert roomy.started[3:] == ["c"], "the third of a would make 110"
    await roomy.end()
    assert roomy.started[4:] == ["a"]


async def test_nobody_overtakes_one_that_waits_for_room(roomy: Line) -> None:
    await roomy.ask("a", tokens=60)
    await roomy.ask("b", tokens=60)
    await roomy.ask("c", "a", tokens=10)
    await roomy.ask("d")  # what takes no room waits like the others
    assert roomy.started == ["a"]
    await roomy.end()
    assert roomy.started == [*"abcad"]


async def test_whoever_has_less_at_work_goes_before_one_that_waits_for_room(roomy: Line) -> None:
    await roomy.ask("b", tokens=50)
    await roomy.ask("a", "a", tokens=30)
    assert roomy.started == ["b", "a"]
    await roomy.ask("c", tokens=10)
    await roomy.ask("d", tokens=20)
    assert roomy.started == ["b", "a", "c"]
    await roomy.end()
    assert roomy.started[3:] == ["d", "a"]


async def test_a_line_keeps_its_order_whatever_its_requests_need(roomy: Line) -> None:
    await roomy.ask("a", "a", tokens=50)
    await roomy.ask("a", tokens=5)
    assert roomy.started == ["a"]
    assert roomy.admission.of_each() == {"a": (1, 2)}
    await roomy.end()
    assert roomy.started == ["a", "a", "a"]


async def test_one_that_needs_all_the_room_gets_it_in_its_turn(roomy: Line) -> None:
    await roomy.ask("a", tokens=10)
    await roomy.ask("a", tokens=1000)
    await roomy.ask("b", tokens=10)  # a has its own to wait for
    assert roomy.started == ["a", "b"]
    await roomy.end()
    await roomy.ask("c", tokens=10)
    assert roomy.started == ["a", "b"]
    await roomy.end()
    assert roomy.started == ["a", "b", "a"]
    await roomy.end()
    assert roomy.started == ["a", "b", "a", "c"]


async def test_one_that_gives_up_its_wait_for_room_lets_the_others_go_on(roomy: Line) -> None:
    await roomy.ask("a", tokens=60)
    await roomy.ask("b", tokens=60, patience_s=0.02)
    await roomy.ask("c", tokens=10)
    await asyncio.wait({roomy.tasks[1]}, timeout=5)
    await settled()
    assert (roomy.started, roomy.refused) == (["a", "c"], [("b", "WAITED_TOO_LONG")])


async def test_operators_have_a_line_of_their_own_like_everybody_else(one: Line) -> None:
    await one.ask("a", "a", "", "a")
    await one.end(2)
    assert one.started == ["a", "a", ""]


async def test_whoever_waits_too_long_is_refused_and_takes_no_turn(one: Line) -> None:
    await one.ask("a")
    await one.ask("b", patience_s=0.02)
    await one.ask("c")
    await asyncio.sleep(0.05)
    assert (one.refused, one.admission.waiting) == ([("b", "WAITED_TOO_LONG")], 1)
    await one.end()
    assert one.started == ["a", "c"]
    with pytest.raises(EngineError) as refusal:
        await one.admission.take("d", asyncio.get_running_loop().time() - 1, asyncio.get_running_loop().create_future())
    assert (refusal.value.code, refusal.value.retry_after_s) == ("WAITED_TOO_LONG", 2)


async def test_whoever_leaves_the_line_takes_no_turn(one: Line) -> None:
    await one.ask("a")
    gone = await one.ask("b")
    await one.ask("b", "c")
    gone.set_result(None)
    await settled()
    assert one.refused == [("b", "gone")]
    await one.end(2)
    assert one.started == ["a", "b", "c"]


async def test_a_turn_that_comes_when_nobody_wants_it_goes_to_the_next(one: Line) -> None:
    await one.ask("a", "b", "c")
    one.turns[0].end()  # b's turn has come, and b has not heard of it yet
    one.tasks[1].cancel()
    await settled()
    assert one.started == ["a", "c"]
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    gone.set_result(None)
    with pytest.raises(Disconnected):
        await one.admission.take("d", asyncio.get_running_loop().time() + 1, gone)


async def test_where_the_line_is_full_the_longest_one_loses_its_newest() -> None:
    line = Line(Admission(places=1, waiting=4))
    await line.ask(*"aaaaa")
    assert (line.refused, line.admission.waiting) == ([], 4)
    await line.ask("a")
    assert line.refused == [("a", "QUEUE_FULL")]
    await line.ask("b", "b")
    assert line.refused == [("a", "QUEUE_FULL")] * 3
    assert line.admission.of_each() == {"a": (1, 2), "b": (0, 2)}
    await line.ask("b")  # the lines are as long as each other: whoever comes is refused
    assert line.refused[3:] == [("b", "QUEUE_FULL")]
    await line.ask("c")
    assert line.refused[4:] == [("a", "QUEUE_FULL")]
    await line.end(4)
    assert sorted(line.started) == [*"aabbc"]


async def test_a_turn_ends_once(one: Line) -> None:
    await one.ask("a", "b", "c")
    turn = one.turns[0]
    turn.end()
    turn.end()
    await settled()
    assert one.started == ["a", "b"]


async def test_a_line_that_is_closed_refuses_all_but_those_at_work(one: Line) -> None:
    await one.ask("a", "b", "c")
    one.admission.close(shutting_down)
    await settled()
    await one.ask("d")
    assert one.refused == [("b", "SHUTTING_DOWN"), ("c", "SHUTTING_DOWN"), ("d", "SHUTTING_DOWN")]
    idle = asyncio.create_task(one.admission.idle())
    await settled()
    assert not idle.done()
    await one.end()
    assert idle.done()
    assert one.started == ["a"]
