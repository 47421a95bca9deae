"""An adapter that changed on its way from the trainer to storage: tried again, and never a success."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage

from common import jobs
from common.tenancy import operator
from tests.cast import make_person
from tests.training.test_training_end_to_end import start_run
from training import tasks as training_tasks
from training.executors import local
from training.models import Adapter, TrainingRun

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.faults, pytest.mark.slow]


def test_an_adapter_that_changed_before_it_was_stored_is_never_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt leaves a checkpoint, which is progress; the three after it leave nothing."""
    start_run(make_person("Ada"), maxSteps=6)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "children"))
    monkeypatch.setattr(local, "TRAINER", "writes_adapter")
    monkeypatch.setattr(jobs, "REQUEUE_DELAY", timedelta(0))
    training_tasks.work()
    with operator():
        row: Any = TrainingRun.objects.get()
        assert (row.status, row.error_code, row.attempt) == ("FAILED", "POISON", 4)
        assert "operators find the reason in the log" in row.error_message
        assert not Adapter.objects.exists()
    assert not default_storage.exists(row.artefacts) or default_storage.listdir(row.artefacts) == ([], [])
