"""What the platform holds: memory, descriptors, threads, connections, keys, temporary files, jobs that have not ended."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import redis

from platform_site import engines
from platform_site.engines.postgres import SUPERUSER
from platform_site.engines.probes import DATABASE
from tests.faults import process_table

SAMPLE_EVERY_S = 5.0
COUNTS = ("threads", "connections", "keys", "temporary_files", "unfinished_jobs")
CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
UNFINISHED_JOBS = """
SELECT (SELECT count(*) FROM training_trainingrun WHERE status IN ('QUEUED', 'RUNNING'))
    + (SELECT count(*) FROM datasets_datasetversion WHERE status IN ('QUEUED', 'RUNNING'))"""
FOLDERS = ("tmp", "attempts", "incoming")
OURS = re.compile(r"web|keeper|up|(datasets|training) (parent|sentinel|pusher|monitor|(idle |busy )?worker)")


@dataclass(frozen=True)
class Sample:
    """At one moment. Memory and CPU by role, of all its processes together."""

    at: float
    rss_mb: dict[str, float]
    cpu_s: dict[str, float]
    counts: dict[str, int]
    descriptors: dict[tuple[str, int], int] = field(default_factory=dict)
    """By process, which is a role and a number: whoever takes another's place has others from its start."""


@dataclass
class Gauges:
    home: Path
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> Gauges:
        state = engines.status(self.home)
        assert state is not None
        sockets = Path(state.sockets)
        self.database = psycopg2.connect(host=str(sockets), user=SUPERUSER, dbname=DATABASE)
        self.database.autocommit = True
        self._redis: Any = redis.Redis.from_url(engines.urls(sockets)[1])
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gauges")
        self._sampling = self._thread.submit(self._keep_sampling)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.shutdown()
        self.database.close()
        self._redis.close()
        self._sampling.result()  # a soak whose gauges stood still has no verdict

    @property
    def web_processes(self) -> int:
        return sum(role_of(process.role) == "web" for process in process_table.table(self.home))

    def read(self) -> Sample:
        memory: dict[str, float] = defaultdict(float)
        cpu: dict[str, float] = defaultdict(float)
        descriptors: dict[tuple[str, int], int] = {}
        counts = dict.fromkeys(COUNTS, 0)
        for process in process_table.table(self.home):
            role = role_of(process.role)
            if role is None:
                continue
            proc = Path(f"/proc/{process.pid}")
            try:
                status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
                memory[role] += int(status["VmRSS"].split()[0]) / 1024
                cpu[role] += process.cpu_s
                counts["threads"] += int(status["Threads"])
                descriptors[role, process.pid] = len(list((proc / "fd").iterdir()))
            except (OSError, KeyError):  # it has just ended
                continue
        counts["connections"] = self._count(CONNECTIONS)
        counts["unfinished_jobs"] = self._count(UNFINISHED_JOBS)
        counts["keys"] = int(self._redis.dbsize())
        counts["temporary_files"] = sum(map(_entries, (self.home / folder for folder in FOLDERS)))
        return Sample(time.time(), dict(memory), dict(cpu), counts, descriptors)

    def _count(self, query: str) -> int:
        with self.database.cursor() as cursor:
            cursor.execute(query)
            return int(cursor.fetchone()[0])

    def _keep_sampling(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            self.samples.append(self.read())


def _entries(folder: Path) -> int:
    """Files and folders below, of which some come and go meanwhile."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(folder))


def role_of(role: str) -> str | None:
    """As the report has it: a worker is one whether it is busy or not. None for whoever comes and goes with a job."""
    return role.replace("idle ", "").replace("busy ", "") if OURS.fullmatch(role) else None
