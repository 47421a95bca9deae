"""Asking an adapter, or the base model.

No transaction is held while the inference server works: a short scope authorizes and reserves, and is left before the
request is sent; another one settles what the answer came to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.utils import timezone

from accounts.permissions import OrganizationClosing, Permission, authorize, organizations_that_permit
from accounts.usage import reserve, settle_in_sum
from accounts.usage_kinds import UsageKind
from common.errors import DomainError, Invalid, NotAllowed, NotFound, NotSignedIn, Unavailable
from common.outages import AWAY, told
from common.tenancy import Principal, organizations_scope
from common.threads import in_thread
from inference import client, tickets
from training import catalogue
from training.models import Adapter, AdapterStage

logger = logging.getLogger(__name__)

RESERVED_FOR = timedelta(hours=1)  # a process that dies settles nothing

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


@dataclass(frozen=True)
class Permit:
    """To ask once: the inference server's ticket, and the tokens that are reserved for it."""

    ticket: str
    organization_id: UUID
    key: str

    def settle(self, tokens: int) -> None:
        """Enter how many it took, in a scope of its own. With the database away the reservation stays, until it lapses."""
        try:
            with organizations_scope([self.organization_id]):
                settle_in_sum(self.organization_id, UsageKind.TOKENS, tokens, key=self.key)
        except AWAY as error:
            logger.warning("%s", told(error))


def permit(*, actor: Principal, adapter: Adapter | None, request: Request) -> Permit:
    """Leave to ask `adapter`, or the base model, once; it has to be settled. In the caller's scope.

    Raises NotAllowed, NotFound, QuotaExceeded, and Invalid.
    """
    base = catalogue.default()
    if adapter is None:
        organization_id = _any_organization(actor)
    else:
        organization_id = adapter.organization_id
        authorize(actor, Permission.PREDICT, organization_id)
        if adapter.stage == AdapterStage.ARCHIVED:
            raise Invalid(
                f"{adapter} is archived: ask another adapter, or have this one promoted.",
                code="ADAPTER_ARCHIVED",
                field="adapterId",
            )
        if adapter.base_model_name != base.name:
            raise Invalid(
                f"This adapter belongs to {adapter.base_model_name}, and the inference server holds {base.name}.",
                code="BASE_MODEL_NOT_SERVED",
                field="adapterId",
            )
    ticket = tickets.Ticket(
        organization=str(organization_id),
        base=base.name,
        max_new_tokens=request.max_new_tokens,
        adapter_key=adapter.storage_prefix if adapter else None,
        adapter_digest=adapter.digest if adapter else None,
    )
    permitted = Permit(tickets.issue(ticket, settings.INFERENCE_SECRET), organization_id, key=f"prediction:{uuid4()}")
    most = min(_most_tokens(request), base.context_tokens)
    lapses_at = timezone.now() + RESERVED_FOR
    reserve(organization_id, UsageKind.TOKENS, most, key=permitted.key, lapses_at=lapses_at)
    return permitted


def predict(*, permit: Permit, request: Request) -> dict[str, Any]:
    """The whole answer at once. To be called outside any scope. Raises Invalid and Unavailable."""
    counted = 0

    def count(chunk: dict[str, Any]) -> None:
        nonlocal counted
        counted = _tokens_until(chunk)

    try:
        with _place(), _worded():
            arguments = settings.INFERENCE_URL, permit.ticket, asdict(request), settings.INFERENCE_TIMEOUT_S
            return client.predict(*arguments, hear=count)
    finally:
        permit.settle(counted)


async def generate(*, permit: Permit, request: Request) -> AsyncIterator[dict[str, Any]]:
    """The answer piece by piece; whoever stops listening frees its place. Raises Invalid and Unavailable."""
    counted = 0
    try:
        with _worded():
            chunks = client.stream(settings.INFERENCE_URL, permit.ticket, asdict(request))
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


def _most_tokens(request: Request) -> int:
    """Byte-level BPE makes no more tokens than bytes. What is no request is refused where its values are checked."""
    return len(request.prompt.encode(errors="surrogatepass")) + max(0, request.max_new_tokens)


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


_OUR_FAULT = {"INTERNAL", "NUMERICS", "TICKET_REFUSED"}
_AVAILABILITY = {"INFERENCE_UNAVAILABLE", "INFERENCE_TIMEOUT", "QUEUE_FULL", "SHUTTING_DOWN", "STARTING"}


@contextlib.contextmanager
def _worded() -> Iterator[None]:
    """The inference server's refusals, as the API words them."""
    try:
        yield
    except client.InferenceError as error:
        if error.code in _OUR_FAULT:
            raise  # masked, and logged with a reference
        raise _domain_error(error) from error


def _domain_error(error: client.InferenceError) -> DomainError:
    if error.retry_after is not None or error.code in _AVAILABILITY:
        return Unavailable(error.message, code=error.code, retry_after_s=error.retry_after or 5)
    if error.code == "NOT_FOUND":
        return NotFound()
    if error.code == "BODY_TOO_LARGE":
        return Invalid("The prompt is longer than any context here.", code="PROMPT_TOO_LONG", field="prompt")
    kind = DomainError if error.field is None else Invalid  # an input is at fault, or none is
    return kind(error.message, code=error.code, field=error.field)
