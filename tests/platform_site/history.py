"""What a finished flow leaves behind: a row of each model that an organization can have."""

from __future__ import annotations

from common.tenancy import operator
from tests.cast import Person
from tests.rows import make_adapter, make_dataset, make_run, make_version
from training.models import Adapter


def make_history(person: Person) -> Adapter:
    """An upload, a dataset and its version, a run, both jobs' first events, and the adapter."""
    name = f"{person.user.name}'s functions"
    version = make_version(person, make_dataset(person, name), rows_in=1204, rows_kept=1180)
    run = make_run(person, version, name=name, status="SUCCEEDED", step=120, total_steps=120, loss=1.214)
    with operator():
        version.created()
        run.created()
    return make_adapter(person, run, test_loss=1.31, base_test_loss=1.83)
