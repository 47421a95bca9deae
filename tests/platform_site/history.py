"""What a finished flow leaves behind: a row of each model that an organization can have."""

from __future__ import annotations

from common.outbox import mail
from common.tenancy import operator
from tests.cast import Person
from tests.rows import make_adapter, make_dataset, make_run, make_version
from training.models import Adapter


def make_history(person: Person) -> Adapter:
    """An upload, a dataset and its version, a run, both jobs' first events, a mail, and the adapter."""
    name = f"{person.user.name}'s functions"
    version = make_version(person, make_dataset(person, name), rows_in=1204, rows_kept=1180)
    run = make_run(person, version, name=name, status="SUCCEEDED", step=120, total_steps=120, loss=1.214)
    with operator():
        version.created()
        run.created()
        mail(
            event=f"training-run/{run.pk}/SUCCEEDED",
            recipient=person.user.email,
            template="training_run_succeeded",
            context={"job": run},
            organization_id=person.organization.pk,
        )
    return make_adapter(person, run, test_loss=1.31, base_test_loss=1.83)
