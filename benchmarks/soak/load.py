"""The clients, as a locust file: requests come when they are due, however long the answers to earlier ones take.

A closed loop would ask less often the slower it is answered, and so hide the worst seconds. Here moments of arrival are drawn
beforehand (Poisson), and a request's time counts from its moment. SOAK_PLAN names the file that says what to do.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gevent
from locust import FastHttpUser, events, task

from benchmarks.soak.mix import Asked, Mix, Tenant, answered, refresh

with open(os.environ["SOAK_PLAN"]) as _file:
    PLAN: dict[str, Any] = json.load(_file)
RECORDS = open(PLAN["records"], "w")  # noqa: SIM115  (closed with the process)
REFRESH_BEFORE_S = 120.0
AGAIN_AFTER_S = 10.0  # where it was refused
CONNECTIONS = 300


@dataclass
class Client:
    """A person with a session, or a program with a key, which has none."""

    token: str
    refresh_token: str | None = None
    refresh_at: float = float("inf")  # drawn once the load begins


class Load(FastHttpUser):
    """All clients together: who asks is drawn for each request."""

    host = PLAN["url"]
    concurrency = CONNECTIONS
    network_timeout = connection_timeout = 60.0

    @task
    def offer(self) -> None:
        for due in _arrivals():
            gevent.sleep(max(0.0, due - time.time()))
            gevent.spawn(LOAD, self, due)
        gevent.sleep(30)  # for the last answers
        RECORDS.flush()
        self.environment.runner.quit()

    def ask(self, client: Client, asked: Asked, due: float) -> Any:
        """The answer's data, recorded; None where it is not what was asked for."""
        content = {"query": asked.document, "variables": asked.variables}
        headers = {"Authorization": f"Bearer {client.token}"} if client.token else {}
        with self.client.post(
            "/graphql", json=content, headers=headers, name=asked.operation, catch_response=True
        ) as answer:
            problem = _problem(asked, answer)
            answer.failure(problem) if problem else answer.success()
        _record(asked, due, problem)
        return None if problem else next(iter(answer.json()["data"].values()))


class TenantLoad:
    def __init__(self) -> None:
        self._mix = Mix(PLAN["seed"], [Tenant(**tenant) for tenant in PLAN["tenants"]])
        self._clients = [[Client(**client) for client in clients] for clients in PLAN["clients"]]
        self._random = random.Random(PLAN["seed"])
        self._moments = random.Random(PLAN["seed"] + 1)
        for client in itertools.chain(*self._clients):
            if client.refresh_token:
                client.refresh_at = self._when_to_refresh()

    def __call__(self, load: Load, due: float) -> None:
        number, asked = self._mix.next()
        client = self._random.choice(self._clients[number])
        if client.refresh_token and time.time() > client.refresh_at:
            self._refresh(load, client)
        load.ask(client, asked, due)

    def _refresh(self, load: Load, client: Client) -> None:
        assert client.refresh_token is not None
        client.refresh_at = time.time() + AGAIN_AFTER_S  # the others go on with the old token meanwhile
        session = load.ask(Client(""), refresh(client.refresh_token), time.time())
        if session:
            client.token, client.refresh_token = session["accessToken"], session["refreshToken"]
            client.refresh_at = self._when_to_refresh()

    def _when_to_refresh(self) -> float:
        """People log in at any time; 400 of one address who exchange their tokens in the same seconds would be refused for that."""
        return time.time() + (PLAN["token_s"] - REFRESH_BEFORE_S) * self._moments.uniform(0.3, 1.0)


def _arrivals() -> Iterator[float]:
    pauses = random.Random(PLAN["seed"])
    for begin, end in PLAN["spans"]:
        due = begin + pauses.expovariate(PLAN["rate"])
        while due < end:
            yield due
            due += pauses.expovariate(PLAN["rate"])


def _problem(asked: Asked, answer: Any) -> str | None:
    if answer.status_code == 0:
        return f"no answer: {type(answer.error).__name__}"
    try:
        return answered(asked, answer.status_code, answer.json() if answer.status_code == 200 else None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"an answer of another shape: {error!r}"


def _record(asked: Asked, due: float, problem: str | None) -> None:
    row = [round(due, 4), round(time.time() - due, 5), asked.operation, asked.is_write, problem]
    RECORDS.write(json.dumps(row) + "\n")


@events.quitting.add_listener
def _close(**_: Any) -> None:
    RECORDS.close()


LOAD = TenantLoad()
