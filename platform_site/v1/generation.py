"""From a body to the choices: found, authorized, and reserved within one short scope, then generated side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from common.errors import DomainError, Invalid
from common.tenancy import Principal, tenant
from inference import actions, tickets
from inference.actions import Permit
from inference.naming import model_named
from platform_site.v1.parameters import Asked

Heard = tuple[int, dict[str, Any]]
"""The number of a choice, and what the inference server says of it."""


@dataclass(frozen=True)
class Permitted:
    """What was asked, with a permit for each choice: these have to be settled."""

    asked: Asked
    permits: Sequence[Permit]
    digest: str | None
    """Of the adapter; None for the base model."""


def permitted(actor: Principal, asked: Asked) -> Permitted:
    """Leave to generate every choice, or none: a refusal takes back what was reserved for the others.

    Raises NotFound, NotAllowed, QuotaExceeded, and Invalid.
    """
    with tenant(actor):
        try:
            adapter = model_named(actor, asked.model)
        except Invalid as refusal:
            raise _with_a_way_out(refusal) from None
        each = [actions.Asked(request, adapter, named_by="model") for request in asked.requests]
        permits: list[Permit] = []
        for permit in actions.permit_each(actor=actor, asked=each):
            if isinstance(permit, DomainError):
                raise permit
            permits.append(permit)
        return Permitted(asked, permits, adapter.digest if adapter else None)


def _with_a_way_out(refusal: Invalid) -> Invalid:
    """There are no ids here to say it by."""
    if refusal.code != "AMBIGUOUS":
        return refusal
    message = (
        "Several of your organizations have an adapter of this name and version: use an API key, which belongs to one."
    )
    return Invalid(message, code=refusal.code, field=refusal.field)


async def generated(found: Permitted) -> AsyncGenerator[Heard, None]:
    """All choices as they come, each up to the piece that has its prediction. The first failure ends all.

    Several wait for each other, and so for as long as the whole may take. Raises Invalid and Unavailable.
    """
    several = len(found.permits) > 1
    wait_s = min(settings.INFERENCE_TIMEOUT_S, tickets.MAX_WAIT_S) if several else None
    streams = [
        actions.generate(permit=permit, request=request, wait_s=wait_s)
        for permit, request in zip(found.permits, found.asked.requests, strict=True)
    ]
    async with aclosing(side_by_side(streams)) as heard:
        async for each in heard:
            yield each


async def side_by_side(streams: Sequence[AsyncGenerator[dict[str, Any], None]]) -> AsyncGenerator[Heard, None]:
    """What each of them says, with its number, as it comes. The first failure ends all; so does whoever stops listening.

    All of them begin, whatever becomes of this: what is to be done at their end is done.
    """
    heard: asyncio.Queue[Heard | Exception | None] = asyncio.Queue(maxsize=len(streams))

    async def listen(number: int, stream: AsyncGenerator[dict[str, Any], None]) -> None:
        try:
            async with aclosing(stream):
                async for chunk in stream:
                    await heard.put((number, chunk))
            await heard.put(None)
        except Exception as error:
            await heard.put(error)

    listening = [asyncio.create_task(listen(number, stream)) for number, stream in enumerate(streams)]
    try:
        left = len(streams)
        while left:
            each = await heard.get()
            if isinstance(each, Exception):
                raise each
            if each is None:
                left -= 1
            else:
                yield each
    finally:
        for task in listening:
            task.cancel()
        await asyncio.wait(listening)  # each settles what it took
