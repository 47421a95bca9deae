"""Asking an adapter, or the base model.

No transaction is held while the inference server works: a short scope authorizes, and is left before the request is sent.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings

from accounts.permissions import OrganizationClosing, Permission, authorize, organizations_that_permit
from common.errors import DomainError, Invalid, NotAllowed, NotFound, NotSignedIn, Unavailable
from common.tenancy import Principal
from inference import client, tickets
from training import catalogue
from training.models import Adapter

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


def permit(*, actor: Principal, adapter: Adapter | None, max_new_tokens: int) -> str:
    """A ticket to ask `adapter`, or the base model, once. Raises NotAllowed, NotFound, and Invalid."""
    base = catalogue.default()
    if adapter is None:
        organization_id = _any_organization(actor)
    else:
        organization_id = adapter.organization_id
        authorize(actor, Permission.PREDICT, organization_id)
        if adapter.base_model_name != base.name:
            raise Invalid(
                f"This adapter belongs to {adapter.base_model_name}, and the inference server holds {base.name}.",
                code="BASE_MODEL_NOT_SERVED",
                field="adapterId",
            )
    ticket = tickets.Ticket(
        organization=str(organization_id),
        base=base.name,
        max_new_tokens=max_new_tokens,
        adapter_key=adapter.storage_prefix if adapter else None,
        adapter_digest=adapter.digest if adapter else None,
    )
    return tickets.issue(ticket, settings.INFERENCE_SECRET)


def predict(*, ticket: str, request: Request) -> dict[str, Any]:
    """The whole answer at once. To be called outside any scope. Raises Invalid and Unavailable."""
    if not _places.acquire(blocking=False):
        raise Unavailable(
            "Too many predictions are being waited for; try again, or use a stream.", code="BUSY", retry_after_s=2
        )
    try:
        with _worded():
            return client.predict(settings.INFERENCE_URL, ticket, asdict(request), settings.INFERENCE_TIMEOUT_S)
    finally:
        _places.release()


async def generate(*, ticket: str, request: Request) -> AsyncIterator[dict[str, Any]]:
    """The answer piece by piece; whoever stops listening frees its place. Raises Invalid and Unavailable."""
    with _worded():
        async with contextlib.aclosing(client.stream(settings.INFERENCE_URL, ticket, asdict(request))) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk


def _any_organization(actor: Principal) -> Any:
    """The base model belongs to nobody; asking it takes a role, in whichever organization, that may ask."""
    if actor.is_nobody:
        raise NotSignedIn
    allowed = organizations_that_permit(actor, Permission.PREDICT)
    if not allowed:
        raise NotAllowed("Your role does not allow you to ask the model.")
    if not (active := sorted(str(key) for key in allowed if key not in actor.closing)):
        raise OrganizationClosing
    return active[0]


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
