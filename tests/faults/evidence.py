"""What is there to be seen once all is quiet: rows, stored files, witnesses, mail. promises.py judges it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2.extras

from tests.faults.history import Fault, Operation, Watcher
from tests.faults.installation import Installation
from tests.faults.scripts import Script, state_in
from tests.faults.witness import Record, read
from tests.mail import Received
from training.trainer.artifact import ADAPTER_WEIGHTS, adapter_digest, sha256_of

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
VERSION, RUN = "DatasetVersion", "TrainingRun"
TABLES = {VERSION: "datasets_datasetversion", RUN: "training_trainingrun"}


@dataclass(frozen=True)
class Job:
    """A job's row. Times are CLOCK_MONOTONIC."""

    kind: str
    id: str
    client: str
    status: str
    name: str = ""  # of a run: its script; of a version: its dataset
    attempt: int = 1
    fence: int = 1
    error_code: str | None = None
    cancel_requested: bool = False
    last_sequence: int = 0
    finished_at: float | None = None
    seed: int = 0
    steps: int = 0
    rows_kept: int | None = None

    @property
    def script(self) -> Script | None:
        return Script.of(self.name) if self.kind == RUN else None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    def __str__(self) -> str:
        return f"{self.kind} {self.id} ({self.name}; {self.client})"


@dataclass(frozen=True)
class Event:
    sequence: int
    kind: str
    status: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Upload:
    id: str
    completed: bool
    sha256: str | None
    stored_sha256: str | None  # of the file that the row names; None where there is none


@dataclass(frozen=True)
class Artefact:
    """What a job's success is said to have left: the digest that its row or manifest names, and what storage holds."""

    job: str
    digest: str
    stored_digest: str | None
    problem: str | None = None  # why it does not load
    state: str | None = None  # of an adapter: the state that its trainer ended with
    rows: int | None = None  # of a version


@dataclass(frozen=True)
class Message:
    """A row of the outbox."""

    id: str
    event: str
    recipient: str
    is_sent: bool


@dataclass
class Evidence:
    jobs: dict[str, Job] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)
    operations: Sequence[Operation] = ()
    watchers: Sequence[Watcher] = ()
    faults: Sequence[Fault] = ()
    witness: Sequence[Record] = ()
    uploads: dict[str, Upload] = field(default_factory=dict)
    artefacts: dict[str, Artefact] = field(default_factory=dict)
    orphans: Sequence[str] = ()  # stored by attempts that did not make it
    unnamed_uploads: dict[str, list[str]] = field(default_factory=dict)  # stored files of no row's, by client
    messages: Sequence[Message] = ()
    mails: Sequence[Received] = ()
    left_behind: Sequence[str] = ()
    unsettled: Sequence[str] = ()  # what had not come to its end in time

    @property
    def runs(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.kind == RUN]


class Collector:
    """Looks from outside: at the database as its owner, and at files."""

    def __init__(self, platform: Installation, monotonic_behind_s: float) -> None:
        """`monotonic_behind_s`: what CLOCK_MONOTONIC is behind the database's clock."""
        self._platform = platform
        self._behind_s = monotonic_behind_s
        self._storage = platform.home / "storage"

    def rows(self, evidence: Evidence) -> None:
        """The jobs, their events, the uploads, and the outbox, as they are now."""
        evidence.jobs = {job.id: job for kind in TABLES for job in self._jobs(kind)}
        evidence.events = {job: [] for job in evidence.jobs}
        for kind in TABLES:
            for row in self._select(
                f"""SELECT job_id::text, sequence, kind, data->>'reason' AS reason,
                    CASE kind WHEN 'StatusChanged' THEN data->>'status' END AS status
                    FROM {TABLES[kind]}event ORDER BY job_id, sequence"""
            ):
                event = Event(row["sequence"], row["kind"], row["status"], row["reason"])
                evidence.events.setdefault(row["job_id"], []).append(event)
        evidence.messages = [
            Message(row["id"], row["event"], row["recipient"], row["sent_at"] is not None)
            for row in self._select("SELECT id::text, event, recipient, sent_at FROM common_outboxmessage")
        ]

    def files(self, evidence: Evidence) -> None:
        """What lies in storage and what the trainers' witness says; after rows()."""
        evidence.witness = read(self._platform.witness)
        evidence.uploads = {
            row["id"]: Upload(
                row["id"], row["completed_at"] is not None, row["sha256"], self._sha256(row["storage_key"])
            )
            for row in self._select("SELECT id::text, completed_at, sha256, storage_key FROM datasets_upload")
        }
        evidence.unnamed_uploads = self._unnamed_uploads()
        kept = {}
        for row in self._select("SELECT training_run_id::text AS job, digest, storage_prefix FROM training_adapter"):
            kept[row["job"]] = row["storage_prefix"]
            evidence.artefacts[row["job"]] = self._adapter(row["job"], row["digest"], row["storage_prefix"])
        for row in self._select(
            "SELECT id::text AS job, storage_prefix FROM datasets_datasetversion WHERE status = 'SUCCEEDED'"
        ):
            kept[row["job"]] = row["storage_prefix"]
            evidence.artefacts[row["job"]] = self._version(row["job"], row["storage_prefix"])
        evidence.orphans = self._orphans(set(kept.values()))

    def make_old(self, jobs: list[str]) -> None:
        """Let jobs have ended an hour ago, so that what waits for some time after their end need not be waited for."""
        for table in TABLES.values():
            self._execute(
                f"UPDATE {table} SET finished_at = finished_at - interval '1 hour' WHERE id::text = ANY(%s)", [jobs]
            )

    def unfinished(self) -> list[str]:
        """Jobs that have not ended and mail that has not been sent, in words."""
        found = []
        for kind, table in TABLES.items():
            for row in self._select(
                f"""SELECT id::text, status, attempt, lease_owner, lease_until - clock_timestamp() AS lease,
                    due_at - clock_timestamp() AS due FROM {table} WHERE status IN ('QUEUED', 'RUNNING')"""
            ):
                where = f"lease of {row['lease_owner']} for {row['lease']}" if row["lease"] else f"due in {row['due']}"
                found.append(f"{kind} {row['id']} is {row['status']} (attempt {row['attempt']}, {where})")
        unsent = self._select(
            "SELECT event, last_error FROM common_outboxmessage WHERE sent_at IS NULL AND failed_at IS NULL"
        )
        return found + [f"mail {row['event']} is unsent ({row['last_error']})" for row in unsent]

    def _jobs(self, kind: str) -> list[Job]:
        more = "j.name, j.config" if kind == RUN else "d.name, j.rows_kept"
        join = "" if kind == RUN else "JOIN datasets_dataset d ON d.id = j.dataset_id"
        return [
            Job(
                kind=kind,
                id=row["id"],
                client=row["email"],
                status=row["status"],
                name=row["name"],
                attempt=row["attempt"],
                fence=row["fence"],
                error_code=row["error_code"],
                cancel_requested=row["cancel_requested_at"] is not None,
                last_sequence=row["last_sequence"],
                finished_at=row["finished_at"] and row["finished_at"].timestamp() - self._behind_s,
                seed=row.get("config", {}).get("seed", 0),
                steps=row.get("config", {}).get("max_steps", 0),
                rows_kept=row.get("rows_kept"),
            )
            for row in self._select(
                f"""SELECT j.id::text, u.email, j.status, j.attempt, j.fence, j.error_code, j.cancel_requested_at,
                    j.last_sequence, j.finished_at, {more}
                    FROM {TABLES[kind]} j JOIN accounts_user u ON u.id = j.created_by_id {join}"""
            )
        ]

    def _adapter(self, job: str, digest: str, prefix: str) -> Artefact:
        folder = self._storage / prefix
        try:
            state = state_in((folder / ADAPTER_WEIGHTS).read_bytes()).hex()
            return Artefact(job, digest, adapter_digest(folder), state=state)
        except (OSError, ValueError, KeyError) as error:
            return Artefact(job, digest, None, f"{type(error).__name__}: {error}")

    def _version(self, job: str, prefix: str) -> Artefact:
        """Compares each file with the manifest, and reads each with pyarrow."""
        import pyarrow.parquet  # half a second, and only where there is a version

        folder = self._storage / prefix
        try:
            files = json.loads((folder / "manifest.json").read_text())["files"]
            wrong = [file["name"] for file in files if sha256_of(folder / file["name"]) != file["sha256"]]
            splits = [file for file in files if file["split"] in ("TRAIN", "VALIDATION", "TEST")]
            rows = sum(pyarrow.parquet.read_table(folder / file["name"]).num_rows for file in splits)
        except (OSError, ValueError, KeyError) as error:
            return Artefact(job, "its manifest", None, f"{type(error).__name__}: {error}")
        return Artefact(job, "its manifest", f"other bytes in {wrong}" if wrong else "its manifest", rows=rows)

    def _orphans(self, kept: set[str]) -> list[str]:
        """Folders of attempts below t/<organization>/{adapters,versions}/<job>/ that no successful job names."""
        found = []
        for kind in ("adapters", "versions"):
            for folder in self._storage.glob(f"t/*/{kind}/*/*"):
                prefix = str(folder.relative_to(self._storage))
                if prefix not in kept and any(folder.iterdir()):
                    found.append(prefix)
        return found

    def _unnamed_uploads(self) -> dict[str, list[str]]:
        """Files t/<organization>/uploads/<upload>/<name> that are not what their upload's row names."""
        found: dict[str, list[str]] = {}
        query = """SELECT d.id::text, d.storage_key, u.email FROM datasets_upload d
                   JOIN accounts_user u ON u.id = d.created_by_id"""
        uploads = {row["id"]: row for row in self._select(query)}
        for path in self._storage.glob("t/*/uploads/*/*"):
            key, upload = str(path.relative_to(self._storage)), uploads.get(path.parent.name)
            if upload is None or upload["storage_key"] != key:
                found.setdefault(upload["email"] if upload else "nobody", []).append(key)
        return found

    def _sha256(self, key: str) -> str | None:
        path = self._storage / key
        return hashlib.sha256(path.read_bytes()).hexdigest() if key and path.is_file() else None

    def _select(self, statement: str) -> list[dict[str, Any]]:
        with self._cursor() as cursor:
            cursor.execute(statement)
            return [dict(row) for row in cursor.fetchall()]

    def _execute(self, statement: str, values: list[Any]) -> None:
        with self._cursor() as cursor:
            cursor.execute(statement, values)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        with (
            closing(self._platform.servers.connect()) as connection,
            connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
        ):
            yield cursor
