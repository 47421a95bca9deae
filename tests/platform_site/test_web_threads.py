"""Who starts when: so many at a time, in the order in which they came, and whoever only waits is in nobody's way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from platform_site.turns import Spent
from platform_site.web_threads import Answer, WebThreads

FOREVER_S = 60.0


def wsgi(work: Callable[[str], None]) -> Callable[..., Any]:
    """An application that does what its path says."""

    def application(environ: dict[str, Any], start_response: Callable[..., None]) -> list[bytes]:
        work(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    return application


def ask(threads: WebThreads, path: str) -> asyncio.Task[Answer]:
    """Each asks once: its path is its name."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
    }
    return asyncio.create_task(threads.answer(scope, b"", (b"", path)))


async def test_so_many_are_at_work_at_a_time_and_the_others_follow_in_their_order() -> None:
    lock, begun, at_once, most = threading.Lock(), list[str](), 0, 0

    def work(path: str) -> None:
        nonlocal at_once, most
        with lock:
            begun.append(path)
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)  # so that those beside it would be seen
        with lock:
            at_once -= 1

    threads = WebThreads(wsgi(work), 8, at_work=2, lent_s=FOREVER_S)
    paths = [f"/{number}" for number in range(12)]
    answers = await asyncio.gather(*(ask(threads, path) for path in paths))
    assert [answer.body.decode() for answer in answers] == paths
    assert most == 2
    assert [sorted(begun[at : at + 2]) for at in range(0, 12, 2)] == [
        sorted(paths[at : at + 2]) for at in range(0, 12, 2)
    ]


async def test_whoever_waits_for_something_else_keeps_nobody_from_working() -> None:
    door = threading.Event()
    threads = WebThreads(wsgi(lambda path: path == "/waits" and door.wait(30) and None), 8, at_work=1, lent_s=0.1)
    waiting = ask(threads, "/waits")
    assert (await ask(threads, "/quick")).body == b"/quick"
    assert not waiting.done()
    door.set()
    assert (await waiting).body == b"/waits"


async def test_the_place_of_one_that_waits_is_lent_once_and_not_given_back_twice() -> None:
    door, others, at_once, most = threading.Event(), threading.Lock(), 0, 0

    def work(path: str) -> None:
        nonlocal at_once, most
        if path == "/waits":
            door.wait(30)
            return
        with others:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with others:
            at_once -= 1

    threads = WebThreads(wsgi(work), 8, at_work=1, lent_s=0.1)
    waiting = [ask(threads, "/waits") for _ in range(3)]
    await asyncio.sleep(0.5)  # each has given its place away
    door.set()
    await asyncio.gather(*waiting)
    threads._lent_s = FOREVER_S
    await asyncio.gather(*(ask(threads, f"/{number}") for number in range(6)))
    assert most == 1


async def test_those_that_wait_are_still_no_more_than_there_are_threads() -> None:
    door = threading.Event()
    threads = WebThreads(wsgi(lambda _: door.wait(30) and None), 2, patience_s=0.5, at_work=1, lent_s=0.05)
    waiting = [ask(threads, f"/waits/{number}") for number in range(2)]
    with pytest.raises(Spent):
        await ask(threads, "/third")
    assert threads.are_spent
    door.set()
    assert [(await each).status for each in waiting] == [200, 200]
    assert not threads.are_spent
    assert (await ask(threads, "/later")).status == 200


async def test_a_loop_that_stood_still_turns_nobody_away_once_it_goes_on() -> None:
    """Whoever waited has waited too long by then, and nobody is at work any more whose end would say that all is well."""
    threads = WebThreads(wsgi(lambda path: time.sleep(0.1) if path == "/first" else None), 1, patience_s=0.2)
    first, second = ask(threads, "/first"), ask(threads, "/second")
    await asyncio.sleep(0.02)
    time.sleep(0.5)
    assert (await first).status == 200
    await asyncio.gather(second, return_exceptions=True)
    assert not threads.are_spent
    assert (await ask(threads, "/third")).status == 200
