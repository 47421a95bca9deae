"""Every address of /v1, each as everybody: whose models are shown, whose are answered, and that another's is as none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import quote

import httpx

from accounts.permissions import Permission
from platform_site.v1 import door
from tests.isolation.askers import Asker
from tests.isolation.flaws import expect_none
from tests.isolation.names import NOBODYS
from tests.isolation.snapshot import changed, snapshot
from tests.isolation.urls import request
from tests.isolation.world import World
from tests.rows import BASE

UNDER_WAY = 503
"""What whoever may ask is answered here, where no inference server listens."""


class Takes(Enum):
    """How an address is told which model is meant."""

    NOTHING = "all that one has"
    PATH = "in its path"
    BODY = "in the body"


@dataclass(frozen=True)
class Address:
    method: str
    path: str
    takes: Takes
    body: dict[str, Any] | None = None

    def ask(self, asker: Asker, model: str = "") -> httpx.Response:
        path = self.path + quote(model, safe="", errors="surrogatepass") if self.takes is Takes.PATH else self.path
        named = {"model": model} if self.takes is Takes.BODY else {}
        content = b"" if self.body is None else json.dumps({**self.body, **named}).encode()
        return request(self.method, path, asker, content)


MESSAGES = [{"role": "user", "content": "def"}]
ADDRESSES = [
    Address("GET", "/v1/models", Takes.NOTHING),
    Address("GET", "/v1/models/", Takes.PATH),
    Address("POST", "/v1/completions", Takes.BODY, {"prompt": "def"}),
    Address("POST", "/v1/chat/completions", Takes.BODY, {"messages": MESSAGES}),
]


def check_all_are_known() -> None:
    served = {door.MODELS, f"{door.MODELS}/", *door.GENERATING}
    known = {address.path for address in ADDRESSES}
    expect_none(f"the address {path} is not in ADDRESSES (tests/isolation/v1.py)" for path in served ^ known)


def check_lists(world: World, *askers: str) -> None:
    """Everybody finds the base model and their own adapters, and nobody else's."""

    def flaws() -> Iterator[str]:
        for name in askers or world.askers:
            asker = world.askers[name]
            answer = ADDRESSES[0].ask(asker)
            if asker.is_anonymous:
                if answer.status_code != 401:
                    yield f"/v1/models as {name}: {answer.status_code}"
                continue
            own = [str(asker.home.rows["Adapter"])] if asker.home else []
            listed = [model["id"] for model in answer.json()["data"]]
            if listed != [BASE, *own] or leaks(world, asker, answer):
                yield f"/v1/models as {name}: {answer.text}"

    expect_none(flaws())


def check_own(world: World, *askers: str) -> None:
    """Whoever may ask gets as far as the inference server; whoever may only look is told so."""

    def flaws() -> Iterator[str]:
        for name in askers or world.askers:
            asker = world.askers[name]
            for address in ADDRESSES:
                if asker.home is None or address.takes is Takes.NOTHING:
                    continue
                answer = address.ask(asker, str(asker.home.rows["Adapter"]))
                admitted = 200 if address.takes is Takes.PATH else UNDER_WAY if asker.may(Permission.PREDICT) else 403
                if answer.status_code != admitted or leaks(world, asker, answer):
                    yield f"{address.path} as {name} should be {admitted}: {answer.status_code} {answer.text}"

    expect_none(flaws())


def check_foreign(world: World, *askers: str) -> None:
    """Another's model is, byte for byte and header for header, one that never existed; and nothing changes."""
    before = snapshot()

    def flaws() -> Iterator[str]:
        for name in askers or world.askers:
            for address in ADDRESSES:
                if address.takes is not Takes.NOTHING:
                    yield from _told_apart(world, address, world.askers[name])
        if tables := changed(before):
            yield f"/v1 changes {', '.join(tables)}"

    expect_none(flaws())


def _told_apart(world: World, address: Address, asker: Asker) -> Iterator[str]:
    expected, answers = 401 if asker.is_anonymous else 404, set()
    for model in [*(str(tenant.rows["Adapter"]) for tenant in world.others(asker)), *NOBODYS]:
        answer = address.ask(asker, model)
        told = {name: value for name, value in answer.headers.items() if name not in CHANGING}
        answers.add((answer.status_code, answer.text, json.dumps(told)))
        if answer.status_code != expected:
            yield f"{address.path} as {asker.name}: {model!r:.80} is answered {answer.status_code} {answer.text[:300]}"
    if len(answers) != 1:
        yield f"{address.path} as {asker.name}: {len(answers)} answers, which should be one: {sorted(answers)}"


CHANGING = {"x-request-id", "ratelimit-remaining", "ratelimit-reset"}
"""Headers that no two answers share."""


def leaks(world: World, asker: Asker, answer: httpx.Response) -> bool:
    return any(secret in answer.text for tenant in world.others(asker) for secret in world.secrets[tenant.word])
