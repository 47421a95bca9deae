"""Whether the model moves: what it said lately shows it, and where it said nothing it is asked."""

from __future__ import annotations

import asyncio
import time

import pytest

from inference.server import pulse
from inference.server.pulse import Pulse


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "FRESH_S", 0.0)
    monkeypatch.setattr(pulse, "PATIENCE_S", 0.05)


async def test_what_was_heard_lately_needs_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "FRESH_S", 10.0)
    asked: list[None] = []
    assert await Pulse(lambda: asked.append(None)).is_felt()
    assert asked == []


async def test_a_model_that_answers_moves() -> None:
    loop = asyncio.get_running_loop()

    def answer() -> None:
        loop.call_later(0.01, felt.answered)

    felt = Pulse(answer)
    assert [await felt.is_felt() for _ in range(3)] == [True] * 3


async def test_a_model_that_does_not_answer_is_asked_once() -> None:
    asked: list[None] = []
    felt = Pulse(lambda: asked.append(None))
    assert [await felt.is_felt() for _ in range(3)] == [False] * 3
    assert asked == [None]
    felt.answered()
    assert not await felt.is_felt()
    assert asked == [None, None]


async def test_whatever_it_says_to_anybody_will_do() -> None:
    felt = Pulse(lambda: None)
    asyncio.get_running_loop().call_later(0.01, felt.heard)
    assert await felt.is_felt()


async def test_a_model_that_steps_moves_though_it_has_nothing_to_say() -> None:
    stepped_at = time.monotonic()
    felt = Pulse(lambda: None, lambda: stepped_at)
    assert not await felt.is_felt()

    def step() -> None:
        nonlocal stepped_at
        stepped_at = time.monotonic()

    asyncio.get_running_loop().call_later(0.01, step)
    assert await felt.is_felt()
    felt._heard_at -= 1000
    felt._owes_since -= 1000
    step()
    assert max(felt.silent_s, felt.owing_s) < 1


async def test_silence_counts_from_when_it_was_given_something_to_do() -> None:
    felt = Pulse(lambda: None)
    felt._heard_at -= 1000
    felt._owes_since -= 1000
    assert felt.owing_s > 999
    felt.owe()
    assert felt.owing_s < 1 < 999 < felt.silent_s
