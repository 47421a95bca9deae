"""A run's page of the admin: its curves, drawn from the log, with gaps where a value was not finite."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import User
from tests.cast import PASSWORD, Person
from tests.rows import make_run
from tests.training.test_curves import log, step
from training.curves import Curve
from training.models import TrainingRun
from training.run_page import HEIGHT, WIDTH, panel


@pytest.fixture
def admin(db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root@example.com", PASSWORD))
    return client


def page(admin: Client, run: TrainingRun) -> str:
    answer = admin.get(reverse("admin:training_trainingrun_change", args=[run.pk]))
    assert answer.status_code == 200
    text = answer.content.decode()
    return text[text.index('<div id="curves"') :]


def stretches(curve: Curve) -> list[str]:
    drawing = panel("Loss", [curve])
    assert drawing is not None
    (line,) = drawing["lines"]
    return line["stretches"]  # type: ignore[no-any-return]


def test_a_line_goes_from_the_first_step_to_the_last_and_from_the_lowest_value_to_the_highest() -> None:
    curve = Curve("loss", [10, 20, 50], [3.0, 1.0, 2.0])
    assert stretches(curve) == [f"0,0 {WIDTH / 4:g},{HEIGHT:g} {WIDTH:g},{HEIGHT / 2:g}"]


def test_where_a_value_was_not_finite_there_is_a_gap_and_one_alone_is_a_dot() -> None:
    curve = Curve("loss", [1, 2, 3, 4, 5], [None, 1.0, None, 0.0, 1.0])
    dot, line = stretches(curve)
    assert dot == " ".join(["%g,0" % (WIDTH / 4)] * 2)
    assert line == f"{3 * WIDTH / 4:g},{HEIGHT:g} {WIDTH:g},0"
    assert panel("Loss", [Curve("loss", [1, 2], [None, None])]) is None


def test_a_single_step_and_a_value_that_never_changes_stand_in_the_middle() -> None:
    assert stretches(Curve("loss", [7], [2.0])) == [f"{WIDTH / 2:g},{HEIGHT / 2:g} {WIDTH / 2:g},{HEIGHT / 2:g}"]
    assert stretches(Curve("loss", [0, 4], [2.0, 2.0])) == [f"0,{HEIGHT / 2:g} {WIDTH:g},{HEIGHT / 2:g}"]


def test_two_curves_share_their_scale() -> None:
    drawing = panel("Loss", [Curve("loss", [1, 3], [4.0, 2.0]), Curve("evalLoss", [2], [3.0])])
    assert drawing is not None
    assert [line["stretches"] for line in drawing["lines"]] == [
        [f"0,0 {WIDTH:g},{HEIGHT:g}"],
        [f"{WIDTH / 2:g},{HEIGHT / 2:g} {WIDTH / 2:g},{HEIGHT / 2:g}"],
    ]
    assert [(line["name"], line["newest"]) for line in drawing["lines"]] == [("training", 2.0), ("validation", 3.0)]


@pytest.mark.django_db(transaction=True)
def test_an_operator_sees_what_was_logged(admin: Client, bob: Person) -> None:
    run = make_run(bob)
    assert "Nothing was logged yet." in page(admin, run)
    log(
        run,
        *(step(number, 3.0 - number / 100) for number in range(1, 101)),
        ("Evaluated", {"step": 50, "eval_loss": 2.25}),
    )
    shown = page(admin, run)
    titles = [
        re.sub("<[^>]*>", "", each).split(" training")[0]
        for each in re.findall("<figcaption>(.*?)</figcaption>", shown)
    ]
    assert titles == ["Loss", "Learning rate"]
    assert "training 2" in shown and "validation 2.25" in shown
    assert shown.count("<polyline") == 3
    assert 'aria-label="Loss over steps 1 to 100"' in shown
