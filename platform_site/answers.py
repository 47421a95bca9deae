"""Answers that are made without Django: JSON, and errors in the shape of GraphQL's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from common.errors import DomainError
from common.graphql import as_graphql_error


@dataclass(frozen=True)
class Answer:
    """A whole one."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def as_json(status: int, content: dict[str, Any], *headers: tuple[bytes, bytes]) -> Answer:
    body = json.dumps(content).encode()
    length = (b"content-length", str(len(body)).encode())
    kind = (b"content-type", b"application/json")
    return Answer(status, [kind, length, *headers], body)


def refusal(status: int, error: DomainError, *headers: tuple[bytes, bytes]) -> Answer:
    """In the shape of GraphQL's answers."""
    shown = as_graphql_error(error)
    content = {"data": None, "errors": [{"message": shown.message, "extensions": shown.extensions}]}
    return as_json(status, content, *headers)
