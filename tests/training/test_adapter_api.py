"""What an adapter says of itself: what it was made of, and where its files are."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.test.utils import CaptureQueriesContext

from platform_site import asgi
from tests.cast import Person
from tests.rows import BASE, global_id, make_adapter, make_run, make_version
from training.trainer.config import TrainingConfig

LINEAGE = """lineage {
    baseModelRevision datasetName datasetVersion fingerprint seed environment { name value } config { seed loraRank epochs }
}"""
LOOK = f"query ($id: ID!) {{ adapter(id: $id) {{ {LINEAGE} productionTestLoss trainingRun {{ name }} }} }}"
LINKS = """query ($id: ID!) { adapter(id: $id) {
    weights: downloadUrl config: downloadUrl(file: CONFIG) card: downloadUrl(file: CARD)
} }"""


def test_an_adapter_says_what_it_was_made_of(bob: Person) -> None:
    environment = {"torch": "2.9.0", "device": "the CPU (2 threads)"}
    run = make_run(
        bob,
        make_version(bob, fingerprint="e" * 64),
        status="SUCCEEDED",
        config=TrainingConfig(seed=5, lora_rank=4).to_json(),
        result={"environment": environment},
    )
    adapter = make_adapter(bob, run, base_model_revision="0", production_test_loss=1.5)
    assert bob.data(LOOK, id=global_id(adapter))["adapter"] == {
        "lineage": {
            "baseModelRevision": "0",
            "datasetName": "Snippets",
            "datasetVersion": 1,
            "fingerprint": "e" * 64,
            "seed": 5,
            "environment": [{"name": name, "value": environment[name]} for name in ("torch", "device")],
            "config": {"seed": 5, "loraRank": 4, "epochs": 3.0},
        },
        "productionTestLoss": 1.5,
        "trainingRun": {"name": "First"},
    }


def test_of_one_without_a_run_the_base_model_is_known(bob: Person) -> None:
    adapter = make_adapter(bob, make_run(bob), training_run=None)
    assert bob.data(LOOK, id=global_id(adapter))["adapter"] == {
        "lineage": {
            "baseModelRevision": "1",
            **dict.fromkeys(["datasetName", "datasetVersion", "fingerprint", "seed", "config"]),
            "environment": [],
        },
        "productionTestLoss": None,
        "trainingRun": None,
    }


def test_lineages_of_a_list_come_with_it(bob: Person) -> None:
    counts = []
    for _ in range(2):
        for _ in range(3):
            make_adapter(bob, make_run(bob, make_version(bob), result={"environment": {"torch": "2"}}))
        with CaptureQueriesContext(connection) as queries:
            listed = bob.data(f"{{ adapters(first: 50) {{ edges {{ node {{ name {LINEAGE} }} }} }} }}")["adapters"]
        assert all(edge["node"]["lineage"]["environment"] for edge in listed["edges"])
        counts.append(len([query for query in queries if "SELECT" in query["sql"]]))
    assert counts[0] == counts[1] <= 4


def get(url: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=asgi.application)
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.get(url)

    return asyncio.run(send())


def test_its_files_are_fetched_by_links_under_the_names_that_peft_reads(bob: Person, charlie: Person) -> None:
    adapter = make_adapter(bob)
    files = {
        "weights": ("adapter_model.safetensors", b"weights", "application/octet-stream"),
        "config": ("adapter_config.json", b"{}", "application/json"),
        "card": ("README.md", b"# A card", "text/markdown; charset=utf-8"),
    }
    for name, content, _ in files.values():
        default_storage.save(f"{adapter.storage_prefix}/{name}", ContentFile(content))
    urls = bob.data(LINKS, id=global_id(adapter))["adapter"]
    for key, (name, content, content_type) in files.items():
        answer = get(urls[key])
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-type"] == content_type
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert charlie.data(LINKS, id=global_id(adapter)) == {"adapter": None}


@pytest.mark.parametrize("base", [BASE, "another"])
def test_adapters_of_a_base_model_are_found(bob: Person, base: str) -> None:
    made = {name: make_adapter(bob, base_model_name=name) for name in (BASE, "another")}
    asked = "query ($base: String) { adapters(baseModel: $base) { edges { node { id } } } }"
    listed: list[dict[str, Any]] = bob.data(asked, base=base)["adapters"]["edges"]
    assert [edge["node"]["id"] for edge in listed] == [global_id(made[base])]
