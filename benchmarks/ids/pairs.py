"""Somebody who tries another organization's ids, each beside one that never existed."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

from django.test import Client
from strawberry import relay

from accounts.models import Membership, Organization, Role, User
from accounts.tokens import issue_session
from common.tenancy import operator
from datasets.models import Dataset

FOREIGN = 200
DOCUMENTS = {
    "query": "query ($id: ID!) { dataset(id: $id) { name latestVersion { number } } }",
    "mutation": """mutation ($id: ID!) { processDataset(input: {datasetId: $id}) {
        __typename ... on OperationInfo { messages { kind code field message } } } }""",
}


class Pairs:
    def __init__(self) -> None:
        with operator():
            own, other = (Organization.objects.create(name=name, slug=name) for name in ("own", "other"))
            user = User.objects.create(email="outsider@example.com", password="!")  # noqa: S106
            Membership.objects.create(organization=own, user=user, role=Role.OWNER)
            Dataset.objects.bulk_create(Dataset(organization=own, name="d") for _ in range(FOREIGN))
            rows = Dataset.objects.bulk_create(Dataset(organization=other, name="d") for _ in range(FOREIGN))
            self._user = user
        self._foreign = [str(row.pk) for row in rows]
        self._client = Client()
        self._answers: dict[str, set[bytes]] = {kind: set() for kind in DOCUMENTS}

    def measure(self, kind: str, pairs: int) -> list[tuple[float, float]]:
        """(milliseconds for a foreign id, for an unknown one) of each pair; which comes first alternates."""
        with operator():  # a session of a round's own: its token lives ten minutes
            token = issue_session(self._user).access_token
        measured = []
        for number in range(pairs):
            ids = (self._foreign[number % FOREIGN], str(uuid4()))
            order = (0, 1) if number % 2 else (1, 0)
            took = {which: self._ask(kind, ids[which], token) for which in order}
            measured.append((took[0], took[1]))
        return measured

    def kinds_of_answers(self, kind: str) -> int:
        return len(self._answers[kind])

    def _ask(self, kind: str, key: str, token: str) -> float:
        one = relay.to_base64("Dataset", key)
        body = json.dumps({"query": DOCUMENTS[kind], "variables": {"id": one}})
        headers = {"Authorization": f"Bearer {token}"}
        begun = time.perf_counter()
        answer: Any = self._client.post("/graphql", body, content_type="application/json", headers=headers)
        took = time.perf_counter() - begun
        self._answers[kind].add(answer.content.replace(one.encode(), b"<id>"))
        return took * 1000
