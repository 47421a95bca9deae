"""The inference server's refusals, as the API words them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from uuid import uuid4

from common.errors import DomainError, Invalid, NotFound, Unavailable
from inference.client import InferenceError

logger = logging.getLogger(__name__)

_OUR_FAULT = {"INTERNAL", "NUMERICS", "TICKET_REFUSED"}
_AVAILABILITY = {
    *("INFERENCE_UNAVAILABLE", "INFERENCE_TIMEOUT", "QUEUE_FULL", "SHUTTING_DOWN", "STARTING", "WAITED_TOO_LONG"),
}


@contextlib.contextmanager
def worded() -> Iterator[None]:
    """What is our own fault is raised as it is, to be masked and logged with a reference."""
    try:
        yield
    except InferenceError as error:
        if error.code in _OUR_FAULT:
            raise
        raise _domain_error(error) from error


def as_one_of_many(error: InferenceError) -> DomainError:
    """`worded`, for an answer among others: what is our own fault is logged with a reference here."""
    if error.code not in _OUR_FAULT:
        return _domain_error(error)
    reference = uuid4().hex[:12]
    logger.error("Prediction %s failed", reference, exc_info=error)
    return DomainError(f"Something went wrong on our side; its operators find it as {reference}.", code="INTERNAL")


def _domain_error(error: InferenceError) -> DomainError:
    if error.retry_after is not None or error.code in _AVAILABILITY:
        return Unavailable(error.message, code=error.code, retry_after_s=error.retry_after or 5)
    if error.code == "NOT_FOUND":
        return NotFound()
    if error.code == "BODY_TOO_LARGE":
        return Invalid("The prompt is longer than any context here.", code="PROMPT_TOO_LONG", field="prompt")
    kind = DomainError if error.field is None else Invalid  # an input is at fault, or none is
    return kind(error.message, code=error.code, field=error.field)
