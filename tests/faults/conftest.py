"""A platform that tests share, one after another, for as long as each leaves it as it found it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.team import Team

UNFINISHED = """SELECT id FROM training_trainingrun WHERE status IN ('QUEUED', 'RUNNING')
                UNION SELECT id FROM datasets_datasetversion WHERE status IN ('QUEUED', 'RUNNING')"""


class Shared:
    """A new platform, and a new team, where there is none that is fit for use."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0
        self._platform: Installation | None = None
        self._team: Team | None = None

    def platform(self) -> Installation:
        if self._platform is None or not _fit_for_use(self._platform):
            self.close()
            self._count += 1
            self._platform = Installation(self._root / str(self._count)).__enter__()
        return self._platform

    def team(self) -> Team:
        """The present platform's."""
        assert self._platform is not None
        if self._team is None:
            self._team = Team(self._platform).__enter__()
        else:
            self._team.call(self._team.api.log_in())  # a token lives ten minutes
        return self._team

    def close(self) -> None:
        if self._team is not None:
            self._team.__exit__(None, None, None)
            self._team = None
        if self._platform is not None:
            self._platform.close()
            self._platform = None


def _fit_for_use(platform: Installation) -> bool:
    try:
        platform.wait_ready(30)
        return not ledger.select(platform, UNFINISHED)
    except Exception:
        return False


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    standing = Shared(tmp_path_factory.mktemp("platforms"))
    yield standing
    standing.close()


@pytest.fixture
def platform(shared: Shared) -> Installation:
    """One with two training workers and stand-in trainers."""
    return shared.platform()


@pytest.fixture
def injector(platform: Installation) -> Injector:
    return Injector(platform)


@pytest.fixture
def team(shared: Shared, platform: Installation) -> Team:
    return shared.team()
