"""A mutation that a quota refuses has done nothing: what stands beside it in the request may be asked for again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accounts.models import Quota
from common.tenancy import operator
from datasets.models import Upload
from tests.cast import make_person

BOTH = """mutation {
  upload: startUpload(input: {fileName: "f", sizeBytes: 5}) { __typename }
  predict(input: {prompt: "def"}) { __typename ... on OperationInfo { messages { code } } } }"""

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("storage_bytes", "kind", "status", "uploads"), [(4, "QuotaExceeded", 503, 0), (5, "UploadTicket", 200, 1)]
)
def test_it_is_sent_again_as_a_whole_only_where_nothing_was_done(
    settings: Any, storage_bytes: int, kind: str, status: int, uploads: int
) -> None:
    settings.INFERENCE_URL = "http://127.0.0.1:9"
    ada = make_person("Ada")
    with operator():
        Quota.objects.create(organization=ada.organization, storage_bytes=storage_bytes)
    headers = {"Authorization": f"Bearer {ada.token}"}
    answer = ada.client.post("/graphql", json.dumps({"query": BOTH}), "application/json", headers=headers)
    assert answer.json()["data"] == {
        "upload": {"__typename": kind},
        "predict": {"__typename": "OperationInfo", "messages": [{"code": "INFERENCE_UNAVAILABLE"}]},
    }
    assert (answer.status_code, "Retry-After" in answer) == (status, status == 503)
    with operator():
        assert Upload.objects.count() == uploads
