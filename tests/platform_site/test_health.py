"""What /readyz says of a process that cannot serve."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db import connection, transaction

from platform_site import health
from tests.web import serving

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Where new connections of the process lead; its threads begin without one."""
    with ThreadPoolExecutor(1) as fresh:
        monkeypatch.setattr(health, "_threads", fresh)
        yield connection.settings_dict


def ready() -> tuple[int, str | None, dict[str, Any]]:
    with serving() as site:
        answer = httpx.get(f"{site}/readyz", timeout=10, trust_env=False)
    return answer.status_code, answer.headers.get("Retry-After"), answer.json()


def unavailable(reason: str) -> tuple[int, str, dict[str, Any]]:
    return 503, "2", {"status": "unavailable", "failing": {"database": reason}}


def test_a_process_that_reaches_everything_is_ready() -> None:
    assert ready() == (200, None, {"status": "ok"})


def test_a_database_that_is_away(elsewhere: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(elsewhere, "HOST", "/nowhere")
    assert ready() == unavailable("It cannot be reached.")


def test_a_database_that_was_never_migrated(elsewhere: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(elsewhere, "NAME", "postgres")
    status, _, body = ready()
    assert status == 503
    assert body["failing"]["database"].startswith("Migrations are missing, up to accounts.")


def test_a_database_that_is_a_release_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = health._newest_migrations()
    monkeypatch.setattr(health, "_newest_migrations", lambda: newest | {("training", "0099_of_tomorrow")})
    assert ready() == unavailable("Migrations are missing, up to training.0099_of_tomorrow.")


def test_a_database_that_does_not_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT_S", 0.5)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE django_migrations IN ACCESS EXCLUSIVE MODE")
        assert ready() == unavailable("It does not answer.")
