"""Two runs of one name by the real worker: the second measures the first, which is in production, and is judged by that."""

from __future__ import annotations

from typing import Any

import pytest

from common.tenancy import operator
from tests.cast import make_person
from tests.rows import global_id
from tests.training.test_stages import promote, refusal
from tests.training.test_training_end_to_end import start_run
from training import tasks as training_tasks
from training.models import Adapter

pytestmark = pytest.mark.django_db(transaction=True)

LOOK = """query ($id: ID!) { adapter(id: $id) {
    version testLoss baseTestLoss productionTestLoss card lineage { seed fingerprint environment { name } }
} }"""


def test_a_run_measures_what_is_in_production_and_is_promoted_by_it(settings: Any) -> None:
    settings.TRAINER_THREADS = 1
    ada = make_person("Ada")
    start_run(ada, maxSteps=8)
    training_tasks.work()
    with operator():
        first = Adapter.objects.get()
    assert promote(ada, first)["stage"] == "PRODUCTION"
    start_run(ada, maxSteps=1, learningRate=1e-9, loraRank=2)
    training_tasks.work()
    with operator():
        second = Adapter.objects.get(version=2)
    seen = ada.data(LOOK, id=global_id(second))["adapter"]
    assert seen["productionTestLoss"] == pytest.approx(first.test_loss, rel=1e-6)
    assert first.test_loss is not None and first.test_loss < 0.9 * seen["testLoss"]
    assert seen["testLoss"] == pytest.approx(seen["baseTestLoss"], rel=1e-4)
    assert second.production_digest == first.digest
    assert (seen["lineage"]["seed"], len(seen["lineage"]["fingerprint"])) == (17, 64)
    assert {"torch", "transformers", "bitsandbytes", "python", "device"} <= {
        fact["name"] for fact in seen["lineage"]["environment"]
    }
    for line in (f"| production_digest | {first.digest} |", "| production_adapter | Adds:1 |", "| seed | 17 |"):
        assert line in seen["card"]
    _, code, message = refusal(promote(ada, second))
    assert code == "WORSE_THAN_PRODUCTION"
    assert f"test loss {seen['testLoss']:.6g} against {seen['productionTestLoss']:.6g}" in message
    assert promote(ada, second, force=True)["stage"] == "PRODUCTION"
    assert promote(ada, first)["stage"] == "PRODUCTION", "the same figures lead back"
