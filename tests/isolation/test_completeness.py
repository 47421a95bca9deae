"""Nothing new escapes the tests of this package: an operation, an id, a kind of node, a text."""

from __future__ import annotations

from typing import Any

import pytest

from tests.isolation import completeness
from tests.isolation.operations import OPERATIONS, Who, open_to
from tests.isolation.owner import changed_by_the_owner
from tests.isolation.world import World

Patch = pytest.MonkeyPatch


def test_every_operation_is_in_the_table() -> None:
    completeness.check_operations()


def test_every_place_that_takes_an_id_is_asked() -> None:
    completeness.check_places()


def test_everything_is_seeded(world: World) -> None:
    completeness.check_examples(world)
    completeness.check_rows(world)
    completeness.check_words(world)


def test_an_operation_that_is_not_in_the_table_is_named(monkeypatch: Patch) -> None:
    monkeypatch.delitem(OPERATIONS, "cancelTrainingRun")
    monkeypatch.setitem(OPERATIONS, "deleteEverything", open_to(Who.EVERYBODY))
    with pytest.raises(
        AssertionError, match=r"`cancelTrainingRun` is not in OPERATIONS[\s\S]*`deleteEverything` is in"
    ):
        completeness.check_operations()


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (open_to(Who.MEMBERS), "`dataset` takes an id: say in OPERATIONS of what"),
        (open_to(Who.MEMBERS, id="Wheel"), r"dataset\(id\) takes the id of a Wheel, which is no node"),
    ],
)
def test_an_id_of_an_unknown_kind_is_named(monkeypatch: Patch, entry: Any, named: str) -> None:
    monkeypatch.setitem(OPERATIONS, "dataset", entry)
    with pytest.raises(AssertionError, match=named):
        completeness.check_places()


def test_an_operation_without_an_example_is_named(world: World, monkeypatch: Patch) -> None:
    monkeypatch.setitem(OPERATIONS, "login", open_to(Who.EVERYBODY, email="x"))
    with pytest.raises(AssertionError, match="`login` needs password: give an example in OPERATIONS, password="):
        completeness.check_examples(world)


def test_a_text_without_a_word_is_named(world: World) -> None:
    with (
        changed_by_the_owner("ALTER TABLE training_adapter ADD notes text NOT NULL DEFAULT ''"),
        pytest.raises(AssertionError, match=r"training_adapter\.notes holds no word of qzours"),
    ):
        completeness.check_words(world)
