"""Asking an adapter, or the base model.

No transaction is held while the inference server works: a short scope authorizes and reserves, and is left before the
request is sent; another one settles what the answer came to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.utils import timezone

from accounts.permissions import OrganizationClosing, Permission, authorize, organizations_that_permit
from accounts.usage import reserve_each, settle_each_in_sum
from accounts.usage_kinds import UsageKind
from common.errors import DomainError, Invalid, NotAllowed, NotSignedIn, QuotaExceeded, Unavailable
from common.outages import AWAY, told
from common.tenancy import Principal, organizations_scope
from common.threads import in_thread
from inference import client, tickets
from inference.refusals import as_one_of_many, worded
from training import catalogue
from training.models import Adapter, AdapterStage

logger = logging.getLogger(__name__)

RESERVED_FOR = timedelta(hours=1)  # a process that dies settles nothing
MAX_BATCH = 64
CHAT_FORM_TOKENS = 32
"""The form of a chat takes fewer, for each message and for the invitation to answer."""

# Streams hold no web thread; `predict` does, and may take half of them: the rest of the API must go on answering.
_places = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 2))


@dataclass(frozen=True)
class Request:
    """What to generate from, and how; the inference server checks the values and names the field that is wrong."""

    prompt: str
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None
    messages: list[dict[str, str]] | None = None
    """A chat to answer, each message with its role and content, in the place of a prompt."""


@dataclass(frozen=True)
class Permit:
    """To ask once: the inference server's ticket, and the tokens that are reserved for it."""

    ticket: str
    organization_id: UUID | None
    """Whose tokens it takes; None for an operator who asks the base model: nobody's."""
    key: str
    tokens: int = 0
    """That it may take at most."""

    def settle(self, tokens: int) -> None:
        settle([(self, tokens)])


@dataclass(frozen=True)
class Asked:
    """One request, and the adapter that it is for; None is the base model. `named_by` is the input that says so."""

    request: Request
    adapter: Adapter | None = None
    named_by: str = "adapterId"


def permit(*, actor: Principal, asked: Asked) -> Permit:
    """Leave to ask once; it has to be settled. In the caller's scope.

    Raises NotAllowed, NotFound, QuotaExceeded, and Invalid.
    """
    (permitted,) = permit_each(actor=actor, asked=[asked])
    if isinstance(permitted, DomainError):
        raise permitted
    return permitted


def permit_each(*, actor: Principal, asked: Sequence[Asked | DomainError]) -> list[Permit | DomainError]:
    """`permit` for each, in their order; what is refused, or was before, does not keep the others. Raises nothing."""
    permitted: list[Permit | DomainError] = []
    for each in asked:
        try:
            permitted.append(each if isinstance(each, DomainError) else _permitted(actor, each))
        except DomainError as refusal:
            permitted.append(refusal)
    refused = _reserve(each for each in permitted if isinstance(each, Permit))
    return [refused.get(each.key, each) if isinstance(each, Permit) else each for each in permitted]


def settle(used: Iterable[tuple[Permit, int]]) -> None:
    """Enter how many tokens each took, in scopes of its own. With the database away the reservations stay, until they lapse."""
    of_each: defaultdict[UUID, dict[str, int]] = defaultdict(dict)
    for permit, tokens in used:
        if permit.organization_id is not None:
            of_each[permit.organization_id][permit.key] = tokens
    for organization_id, tokens_by_key in of_each.items():
        try:
            with organizations_scope([organization_id]):
                settle_each_in_sum(organization_id, UsageKind.TOKENS, tokens_by_key)
        except AWAY as error:
            logger.warning("%s", told(error))


def predict(*, permit: Permit, request: Request) -> dict[str, Any]:
    """The whole answer at once. To be called outside any scope. Raises Invalid and Unavailable."""
    counted = 0

    def count(chunk: dict[str, Any]) -> None:
        nonlocal counted
        counted = _tokens_until(chunk)

    try:
        with _place(), worded():
            arguments = settings.INFERENCE_URL, permit.ticket, asdict(request), settings.INFERENCE_TIMEOUT_S
            return client.predict(*arguments, hear=count)
    finally:
        permit.settle(counted)


def predict_batch(
    *, permits: Sequence[Permit | DomainError], requests: Sequence[Request]
) -> list[dict[str, Any] | DomainError]:
    """`predict` for each, all at once: in their order, the answer or the refusal. To be called outside any scope.

    Raises Unavailable, or QuotaExceeded, where that is the answer to every one of them: nothing came of the whole.
    """
    permitted = {place: permit for place, permit in enumerate(permits) if isinstance(permit, Permit)}
    refused = {place: refusal for place, refusal in enumerate(permits) if isinstance(refusal, DomainError)}
    answered = _asked_at_once(list(permitted.values()), [requests[place] for place in permitted])
    by_place: dict[int, dict[str, Any] | DomainError] = {**refused, **dict(zip(permitted, answered, strict=True))}
    answers = [by_place[place] for place in range(len(permits))]
    for kind in (Unavailable, QuotaExceeded):
        refusals = [answer for answer in answers if isinstance(answer, kind)]
        if refusals and len(refusals) == len(answers):
            raise max(refusals, key=lambda refusal: refusal.retry_after_s or 0)
    return answers


def _asked_at_once(permits: Sequence[Permit], requests: Sequence[Request]) -> list[dict[str, Any] | DomainError]:
    counted = [0] * len(permits)

    def count(place: int, chunk: dict[str, Any]) -> None:
        counted[place] = _tokens_until(chunk)

    if not permits:
        return []
    timeout_s = settings.INFERENCE_TIMEOUT_S
    wait_s = min(timeout_s, tickets.MAX_WAIT_S)  # the last one waits for the first, for all of their time if need be
    bodies = [{**asdict(request), "wait_s": wait_s} for request in requests]
    asked = [(permit.ticket, body) for permit, body in zip(permits, bodies, strict=True)]
    try:
        with _place():
            answers = client.predict_all(settings.INFERENCE_URL, asked, timeout_s, hear=count)
    finally:
        settle(zip(permits, counted, strict=True))
    return [as_one_of_many(answer) if isinstance(answer, client.InferenceError) else answer for answer in answers]


async def generate(
    *, permit: Permit, request: Request, wait_s: float | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """The answer piece by piece; whoever stops listening frees its place. Raises Invalid and Unavailable.

    `wait_s` is how long it waits for its turn, where that is not for as long as the inference server has patience.
    """
    counted = 0
    try:
        with worded():
            chunks = client.stream(settings.INFERENCE_URL, permit.ticket, {**asdict(request), "wait_s": wait_s})
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    counted = _tokens_until(chunk)
                    yield chunk
    finally:  # also where whoever listened has gone, and this task is cancelled
        await asyncio.shield(in_thread(lambda: permit.settle(counted)))


@contextlib.contextmanager
def _place() -> Iterator[None]:
    if not _places.acquire(blocking=False):
        raise Unavailable(
            "Too many predictions are being waited for; try again, or use a stream.", code="BUSY", retry_after_s=2
        )
    try:
        yield
    finally:
        _places.release()


def _permitted(actor: Principal, asked: Asked) -> Permit:
    """Nothing is reserved yet."""
    base, adapter = catalogue.default(), asked.adapter
    if adapter is None:
        organization_id = _any_organization(actor)
    else:
        organization_id = adapter.organization_id
        authorize(actor, Permission.PREDICT, organization_id)
        if adapter.stage == AdapterStage.ARCHIVED:
            raise Invalid(
                f"{adapter} is archived: ask another adapter, or have this one promoted.",
                code="ADAPTER_ARCHIVED",
                field=asked.named_by,
            )
        if adapter.base_model_name != base.name:
            raise Invalid(
                f"This adapter belongs to {adapter.base_model_name}, and the inference server holds {base.name}.",
                code="BASE_MODEL_NOT_SERVED",
                field=asked.named_by,
            )
    ticket = ticket_for(organization_id, adapter, asked.request)
    most = min(_most_tokens(asked.request), base.context_tokens)
    return Permit(ticket, organization_id, key=f"prediction:{uuid4()}", tokens=most)


def ticket_for(organization_id: UUID | None, adapter: Adapter | None, request: Request) -> str:
    ticket = tickets.Ticket(
        organization=str(organization_id or ""),
        base=catalogue.default().name,
        max_new_tokens=request.max_new_tokens,
        adapter_key=adapter.storage_prefix if adapter else None,
        adapter_digest=adapter.digest if adapter else None,
    )
    return tickets.issue(ticket, settings.INFERENCE_SECRET)


def _reserve(permits: Iterable[Permit]) -> dict[str, QuotaExceeded]:
    """By key, those for which too little is left."""
    of_each: defaultdict[UUID, dict[str, int]] = defaultdict(dict)
    for permit in permits:
        if permit.organization_id is not None:
            of_each[permit.organization_id][permit.key] = permit.tokens
    refused: dict[str, QuotaExceeded] = {}
    lapses_at = timezone.now() + RESERVED_FOR
    for organization_id in sorted(of_each):  # in one order, so that no two wait for each other
        refused |= reserve_each(organization_id, UsageKind.TOKENS, of_each[organization_id], lapses_at=lapses_at)
    return refused


def _most_tokens(request: Request) -> int:
    """Byte-level BPE makes no more tokens than bytes. What is no request is refused where its values are checked."""
    most = _bytes_of(request.prompt) + max(0, request.max_new_tokens)
    if request.messages:
        said = sum(_bytes_of(message["role"]) + _bytes_of(message["content"]) for message in request.messages)
        most += said + CHAT_FORM_TOKENS * (len(request.messages) + 1)
    return most


def _bytes_of(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


def _tokens_until(chunk: dict[str, Any]) -> int:
    """Those of the prompt, and of the answer so far."""
    whole = chunk.get("prediction")
    tokens: int = whole["prompt_tokens"] + whole["completion_tokens"] if whole else chunk["tokens"]
    return tokens


def _any_organization(actor: Principal) -> UUID:
    """The base model belongs to nobody; asking it takes a role, in whichever organization, that may ask."""
    if actor.is_nobody:
        raise NotSignedIn
    allowed = organizations_that_permit(actor, Permission.PREDICT)
    if not allowed:
        raise NotAllowed("Your role does not allow you to ask the model.")
    if not (active := [organization_id for organization_id in allowed if organization_id not in actor.closing]):
        raise OrganizationClosing
    return min(active)
