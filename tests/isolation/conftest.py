"""The two organizations, made once for each file of tests: each test's own changes are rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from common import tails
from tests.emptying import empty_tables
from tests.isolation.world import World, make_world

NOBODY_LISTENS = "http://127.0.0.1:9"


def storage(folder: Path) -> dict[str, Any]:
    from django.conf import settings

    return {**settings.STORAGES, "default": {**settings.STORAGES["default"], "OPTIONS": {"location": folder}}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def committed_world(django_db_setup: None, django_db_blocker: Any, files: Path) -> Iterator[World]:
    with django_db_blocker.unblock(), override_settings(STORAGES=storage(files)):
        made = make_world()
    yield made
    tails.forget()
    with django_db_blocker.unblock():
        empty_tables()


@pytest.fixture
def world(committed_world: World, db: None, home: Path, files: Path, settings: Any) -> World:
    settings.STORAGES = storage(files)
    settings.INFERENCE_URL = NOBODY_LISTENS
    settings.ESTIMATES = True
    return committed_world
