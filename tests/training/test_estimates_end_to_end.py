"""From a version by the real pipeline to an estimate of its run: counted by the datasets' worker, and by the trainer's own lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.tenancy import operator
from datasets import tasks
from datasets.models import Dataset, DatasetVersion
from tests.cast import Person
from tests.rows import global_id, make_upload
from tests.training.estimates import device
from training.catalogue import SMALL
from training.models import TokenCount
from training.trainer.config import TrainingConfig
from training.trainer.lengths import Lengths
from training.trainer.sampler import Sampler

ROWS = [
    {"prompt": f"def add_{number}(value):\n", "completion": f"    return value + {number}\n" * (1 + number % 90)}
    for number in range(300)
]
CREATE = """
mutation ($upload: ID!) { createDataset(input: {name: "Additions", uploadId: $upload, recipe: {nearDedup: null}}) {
  ... on DatasetVersion { id } } }"""
ESTIMATE = """
mutation ($version: ID!, $config: TrainingConfigInput) {
  answer: estimateTrainingRun(input: {datasetVersionId: $version, config: $config}) {
    __typename ... on Estimate { steps tokens } ... on OperationInfo { messages { code } } } }"""

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def version(bob: Person, settings: Any) -> DatasetVersion:
    settings.ESTIMATES = True
    upload = make_upload(bob, "\n".join(json.dumps(row) for row in ROWS).encode())
    bob.data(CREATE, upload=global_id(upload))
    tasks.work()
    with operator():
        return DatasetVersion.objects.get()


def count_of(version: DatasetVersion) -> TokenCount:
    with operator():
        return TokenCount.objects.get(version=version)


def test_a_version_that_is_made_is_counted_as_its_run_will_read_it(
    bob: Person, version: DatasetVersion, tmp_path: Path, settings: Any
) -> None:
    from transformers import AutoTokenizer

    from training.trainer.encoding import Examples
    from training.trainer.rows import read_rows

    count = count_of(version)
    assert (count.status, count.base_model_name, count.base_model_revision) == ("SUCCEEDED", SMALL.name, "1")
    tokenizer = AutoTokenizer.from_pretrained(SMALL.folder)
    for split in ("train", "validation", "test"):
        shard = settings.STORAGE_ROOT / version.storage_prefix / f"{split}-00000.parquet"
        examples = Examples.from_rows(read_rows([shard]), tokenizer, 256)
        assert Lengths.from_json(count.splits[split]).at(256).tolist() == examples.lengths.tolist()
        if split == "train":
            made = Sampler(examples.lengths, TrainingConfig(max_sequence_tokens=256, batch_size=2), 256)
            trained = int(examples.lengths.sum()) * 3
    device()
    answer = bob.data(ESTIMATE, version=global_id(version), config={"maxSequenceTokens": 256, "batchSize": 2})["answer"]
    assert answer == {"__typename": "Estimate", "steps": made.total_steps, "tokens": trained}


def test_one_that_was_made_before_is_counted_once_somebody_asks(bob: Person, version: DatasetVersion) -> None:
    with operator():
        TokenCount.objects.all().delete()
    device()
    asked = bob.data(ESTIMATE, version=global_id(version))["answer"]
    assert asked["messages"] == [{"code": "ESTIMATE_PENDING"}]
    tasks.work()
    assert bob.data(ESTIMATE, version=global_id(version))["answer"]["__typename"] == "Estimate"


def test_a_version_whose_dataset_was_deleted_is_not_counted(bob: Person, version: DatasetVersion) -> None:
    with operator():
        TokenCount.objects.all().delete()
    bob.data(ESTIMATE, version=global_id(version))
    with operator():
        DatasetVersion.objects.update(storage_prefix="")
        Dataset.objects.update(name="gone")
    tasks.work()
    assert (count_of(version).status, count_of(version).error_code) == ("FAILED", "DATASET_DELETED")


def test_without_estimates_a_version_is_not_counted(bob: Person, settings: Any) -> None:
    settings.ESTIMATES = False
    upload = make_upload(bob, "\n".join(json.dumps(row) for row in ROWS[:20]).encode())
    bob.data(CREATE, upload=global_id(upload))
    tasks.work()
    with operator():
        assert (DatasetVersion.objects.get().status, TokenCount.objects.count()) == ("SUCCEEDED", 0)
