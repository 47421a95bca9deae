"""Somebody who is signed in and sends hostile documents, through the whole of HTTP as the web process answers it."""

from __future__ import annotations

import gc
import json
import time
from typing import Any

from django.test import Client

from accounts.models import User
from accounts.tokens import issue_session
from common.tenancy import operator
from platform_site.frames import with_room
from tests.platform_site.hostile import HOSTILE, WRONG

DOCUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (document, {}) for name, document, _ in HOSTILE},
    **{f"wrong {name}": (document, variables) for name, document, variables in WRONG},
}


class Attacker:
    def __init__(self) -> None:
        with operator():
            self._user = User.objects.create(email="attacker@example.com", password="!")  # noqa: S106
        self._client = Client()
        self._answers: set[bool] = set()

    def measure(self) -> dict[str, float]:
        """Milliseconds for each document, sent once. As in the web process the collector leaves alone what is loaded."""
        with operator():  # a session of a round's own: its token lives ten minutes
            token = issue_session(self._user).access_token
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        return {name: 1000 * self._ask(document, variables, token) for name, (document, variables) in DOCUMENTS.items()}

    def are_all_refused(self) -> bool:
        return self._answers == {True}

    def _ask(self, document: str, variables: dict[str, Any], token: str) -> float:
        body = json.dumps({"query": document, "variables": variables})
        headers = {"Authorization": f"Bearer {token}"}

        def post() -> Any:
            return self._client.post("/graphql", body, content_type="application/json", headers=headers)

        begun = time.perf_counter()
        answer = with_room(post)
        took_s = time.perf_counter() - begun
        said = answer.json()
        self._answers.add(said["data"] is None and bool(said["errors"]))
        return took_s
