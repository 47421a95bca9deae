"""What the processes of the tests have for themselves."""

from __future__ import annotations

import os

from common.queues import connect


def test_each_process_of_tests_has_a_database_of_redis_for_itself() -> None:
    with connect() as client:
        number = int(client.client_info()["db"])
    assert number == int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
