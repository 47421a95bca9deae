"""What the processes of the tests have for themselves."""

from __future__ import annotations

import os

import pytest
from redis.connection import parse_url

from common.queues import connect
from tests.engines import own_database


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "redis://:p%40w@host:6379/5?db=0&protocol=3"])
def test_each_process_of_tests_has_a_database_of_redis_for_itself(url: str) -> None:
    inherited = own_database(url, "gw0")
    assert [parse_url(own_database(inherited, worker))["db"] for worker in ("gw0", "gw1", "gw12")] == [0, 1, 12]
    assert parse_url(own_database(url, "gw1")) == parse_url(url) | {"db": 1}


def test_this_one_has_its_own() -> None:
    with connect() as client:
        assert f"gw{client.client_info()['db']}" == os.environ.get("PYTEST_XDIST_WORKER", "gw0")
