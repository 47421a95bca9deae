"""What the keeper does from time to time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError

from common import timetable
from common.timetable import Timetable, every


@pytest.fixture(autouse=True)
def _nothing_else_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timetable, "_declared", {})


def test_what_is_due_is_done_at_the_start_and_once_in_its_period() -> None:
    done = []

    @every(timedelta(hours=1))
    def hourly() -> None:
        done.append("hourly")

    @every(timedelta(0))
    def always() -> None:
        done.append("always")

    table = Timetable()
    for _ in range(3):
        table.carry_out_due()
    assert done == ["hourly", "always", "always", "always"]


def test_one_that_fails_is_logged_and_holds_up_nobody(caplog: Any) -> None:
    done = []

    @every(timedelta(hours=1))
    def broken() -> None:
        raise ValueError("out of order")

    @every(timedelta(hours=1))
    def sound() -> None:
        done.append(1)

    table = Timetable()
    table.carry_out_due()
    table.carry_out_due()
    assert done == [1]
    assert [record.exc_info[1].args for record in caplog.records] == [("out of order",)]


def test_with_the_database_away_nothing_counts_as_done() -> None:
    calls = []

    @every(timedelta(hours=1))
    def needs_the_database() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError

    table = Timetable()
    with pytest.raises(OperationalError):
        table.carry_out_due()
    table.carry_out_due()
    assert len(calls) == 2
