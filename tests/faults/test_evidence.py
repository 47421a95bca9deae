"""The checker sees what is wrong in storage: each wrong thing is planted behind the back of a platform that did all well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.faults import ledger
from tests.faults.disk import Tear, tear
from tests.faults.evidence import Collector, Evidence
from tests.faults.installation import Installation
from tests.faults.promises import artefacts_are_whole, nothing_is_left
from tests.faults.team import Team
from tests.faults.trial import leaked_locks

pytestmark = [pytest.mark.faults, pytest.mark.slow]

UPLOADS = """SELECT d.id::text, d.storage_key FROM datasets_upload d JOIN accounts_user u ON u.id = d.created_by_id
             WHERE u.email = %s"""
VERSIONS = "SELECT id::text, storage_prefix FROM datasets_datasetversion WHERE status = 'SUCCEEDED' AND id::text = %s"


@pytest.fixture
def trained(team: Team) -> str:
    run = team.start_run(steps=5)
    team.wait_trained(run)
    return run


def look(platform: Installation) -> Evidence:
    evidence, collector = Evidence(), Collector(platform, time.time() - time.monotonic())
    collector.rows(evidence)
    collector.files(evidence)
    return evidence


@contextmanager
def planted(path: Path) -> Iterator[str]:
    missing = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"?")
    try:
        yield str(path.parent)
    finally:
        path.unlink()
        for folder in missing:
            folder.rmdir()


@contextmanager
def spoiled(path: Path, how: Callable[[Path], None]) -> Iterator[None]:
    content = path.read_bytes()
    how(path)
    try:
        yield
    finally:
        path.write_bytes(content)


def flipped(path: Path) -> None:
    tear(path, Tear.FLIP, Random(1))


def cut(path: Path) -> None:
    tear(path, Tear.TRUNCATE, Random(1))


def test_nothing_is_found_where_nothing_is_wrong(platform: Installation, team: Team, trained: str) -> None:
    evidence = look(platform)
    assert evidence.orphans == [] and evidence.unnamed_uploads == {}
    assert list(artefacts_are_whole(evidence)) == [] and list(nothing_is_left(evidence)) == []
    assert evidence.artefacts[ledger.job_id(trained)].state is not None
    (upload,) = ledger.select(platform, UPLOADS, team.email)
    found = evidence.uploads[upload["id"]]
    assert found.completed and found.stored_sha256 == found.sha256 is not None


@pytest.mark.parametrize("kind", ["adapters", "versions"])
def test_what_an_attempt_stored_that_did_not_make_it_is_found(
    platform: Installation, team: Team, trained: str, kind: str
) -> None:
    storage = platform.home / "storage"
    job = ledger.job_id(trained if kind == "adapters" else team.version)
    prefix = f"t/{team.row(trained)['organization_id']}/{kind}/{job}/0009"
    with planted(storage / prefix / "part"):
        evidence = look(platform)
        assert evidence.orphans == [prefix]
        assert list(nothing_is_left(evidence)) == [f"left behind in storage: {prefix}"]


@pytest.mark.parametrize("spoil", [flipped, cut, Path.unlink])
def test_an_adapter_that_is_not_whole_is_found(
    platform: Installation, trained: str, spoil: Callable[[Path], None]
) -> None:
    with spoiled(ledger.adapter_file(platform, trained), spoil):
        (said,) = artefacts_are_whole(look(platform))
        assert ledger.job_id(trained) in said


@pytest.mark.parametrize("spoil", [flipped, cut, Path.unlink])
def test_a_version_that_is_not_whole_is_found(
    platform: Installation, team: Team, spoil: Callable[[Path], None]
) -> None:
    (version,) = ledger.select(platform, VERSIONS, ledger.job_id(team.version))
    folder = platform.home / "storage" / version["storage_prefix"]
    with spoiled(next(iter(sorted(folder.glob("*.parquet")))), spoil):
        (said,) = artefacts_are_whole(look(platform))
        assert version["id"] in said


@pytest.mark.parametrize("spoil", [flipped, cut, Path.unlink])
def test_an_upload_that_is_lost_or_torn_is_found(
    platform: Installation, team: Team, spoil: Callable[[Path], None]
) -> None:
    (upload,) = ledger.select(platform, UPLOADS, team.email)
    with spoiled(platform.home / "storage" / upload["storage_key"], spoil):
        found = look(platform).uploads[upload["id"]]
        assert found.completed and found.stored_sha256 != found.sha256


def test_a_stored_upload_that_no_row_names_is_found(platform: Installation, team: Team) -> None:
    (upload,) = ledger.select(platform, UPLOADS, team.email)
    key = Path(upload["storage_key"]).parent / "another"
    with planted(platform.home / "storage" / key):
        evidence = look(platform)
        assert evidence.unnamed_uploads == {team.email: [str(key)]}
        assert len(list(nothing_is_left(evidence))) == 1


def test_a_process_or_a_temporary_file_that_stays_is_found(platform: Installation) -> None:
    with planted(platform.temporary / "left"):
        assert "temporary file left" in platform.left_behind()
    assert "temporary file left" not in platform.left_behind()
    assert any(each.startswith("process") for each in platform.left_behind())


def test_a_lock_that_nobody_gives_back_is_found(platform: Installation) -> None:
    assert leaked_locks(platform, within_s=10.0) == []
    with closing(platform.servers.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(3, 4)")
        assert any("'classid': 3, 'objid': 4" in lock for lock in leaked_locks(platform, within_s=1.0))
