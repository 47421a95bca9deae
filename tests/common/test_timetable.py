"""What the keeper does from time to time."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError

from common import timetable
from common.timetable import Timetable, carrying_out_slow, every


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
        table.carry_out_due(leads=True)
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
    table.carry_out_due(leads=True)
    table.carry_out_due(leads=True)
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
        table.carry_out_due(leads=True)
    table.carry_out_due(leads=True)
    assert len(calls) == 2


def test_what_concerns_a_host_is_done_by_every_keeper_and_all_else_by_the_one_that_leads() -> None:
    done = []

    @every(timedelta(0), on_each_host=True)
    def of_the_host() -> None:
        done.append("host")

    @every(timedelta(hours=1))
    def once_for_all() -> None:
        done.append("all")

    table = Timetable()
    assert [table.carry_out_due(leads=leads) for leads in (False, False, True)] == [1, 1, 2]
    assert done == ["host", "host", "host", "all"]


def test_a_slow_one_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timetable, "LOOK_EVERY_S", 0.01)
    began, goes_on, ended = threading.Event(), threading.Event(), threading.Event()
    done = []

    @every(timedelta(hours=1), slow=True)
    def slow() -> None:
        began.set()
        goes_on.wait(20)
        ended.set()

    @every(timedelta(0))
    def quick() -> None:
        done.append("quick")

    leads, table = threading.Event(), Timetable()
    leads.set()
    with carrying_out_slow(leads):
        assert began.wait(20)
        assert table.carry_out_due(leads=True) == 1
        assert (done, ended.is_set()) == (["quick"], False)
        goes_on.set()
        assert ended.wait(20)
    assert [thread.name for thread in threading.enumerate() if thread.name == "schedules"] == []


def test_a_slow_one_is_for_the_one_that_leads_too_and_outlasts_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timetable, "LOOK_EVERY_S", 0.01)
    calls, of_the_host_done, done = [], threading.Event(), threading.Event()

    @every(timedelta(0), slow=True, on_each_host=True)
    def of_the_host() -> None:
        of_the_host_done.set()

    @every(timedelta(hours=1), slow=True)
    def once_for_all() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError
        done.set()

    leads = threading.Event()
    with carrying_out_slow(leads):
        assert of_the_host_done.wait(20)
        assert calls == []
        leads.set()
        assert done.wait(20)
    assert len(calls) == 2
