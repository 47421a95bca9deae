"""`manage.py jobs`, as an operator uses it at night."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from common.claims import claim
from common.clock import ServerClock
from common.events import Event
from common.jobs import JobStatus
from common.leftovers import attempt_folder
from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import Person, make_person
from tests.processes import environment
from tests.rows import make_dataset, make_run, make_version
from training.models import TrainingRun

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet_queues")]

ESCAPE = "\x1b"


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def running(ada: Person) -> TrainingRun:
    """A run at step 120 of 800, whose child runs elsewhere."""
    run = make_run(ada, name="Django's functions")
    assert claim(TrainingRun, "worker-7:4711")
    child = {"host": "worker-7", "pid": 4712}
    with operator():
        TrainingRun.objects.filter(pk=run.pk).update(step=120, total_steps=800, process=child)
        TrainingRun.objects.filter(pk=run.pk).advance([Event("StepLogged", {"step": 120, "loss": 1.23456789})])
    return run


def jobs(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, output, and errors."""
    status = 0
    try:
        call_command("jobs", *arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    return status, said.out, said.err


def process(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "jobs", *arguments]
    everything = {**environment(), **variables}
    return subprocess.run(
        command, cwd=settings.BASE_DIR, env=everything, capture_output=True, text=True, timeout=60, check=False
    )


def lines(output: str) -> list[str]:
    return [line.rstrip() for line in output.splitlines() if line.strip()]


def test_with_nothing_to_do_each_queue_says_so(db: None, capsys: Any) -> None:
    status, output, errors = jobs(capsys)
    assert (status, errors) == (0, "")
    assert lines(output) == [
        "datasets: 0 queued, 0 running, 0 stuck; no worker is heard; 0 rings unheard",
        "datasets, version reports: 0 queued, 0 running, 0 stuck; no worker is heard; 0 rings unheard",
        "datasets, token counts: 0 queued, 0 running, 0 stuck; no worker is heard; 0 rings unheard",
        "training: 0 queued, 0 running, 0 stuck; no worker is heard; 0 rings unheard",
        "No keeper is running: nobody requeues lost jobs, or sends mail. Start one: manage.py keeper",
    ]


def test_it_shows_what_is_stuck_running_and_queued_who_holds_it_since_when_and_why(
    running: TrainingRun, ada: Person, capsys: Any
) -> None:
    with operator():
        TrainingRun.objects.filter(pk=running.pk).update(created_at=timezone.now() - timedelta(hours=5))
    stuck, queued = make_run(ada, name="Stuck"), make_run(ada, name="Queued")
    with operator():
        TrainingRun.objects.filter(pk=stuck.pk).update(due_at=ServerClock() - timedelta(seconds=40))
        TrainingRun.objects.filter(pk=queued.pk).update(created_at=timezone.now() - timedelta(minutes=3))
    _, output, _ = jobs(capsys, "--queue", "training")
    shown = [re.sub(r" {2,}", "  ", line.strip()) for line in lines(output)]
    assert shown[:2] == [
        "training: 2 queued, 1 running, 1 stuck; no worker is heard; 0 rings unheard",
        "ID  ORGANIZATION  NAME  STATUS  FOR  ATTEMPT  LEASE",
    ]
    assert shown[2] == f"! {stuck.pk.hex[:8]}  Ada's  Stuck  QUEUED  0 s  -  -"
    assert re.fullmatch(r"due 4\d s ago; no worker of queue training is heard", shown[3])
    assert re.fullmatch(
        rf"{running.pk.hex[:8]}  Ada's  Django's functions  RUNNING  \d s  1 \(1/3\)  (60|5\d) s", shown[4]
    )
    assert re.fullmatch(r"worker-7:4711, child 4712: step 120/800, StepLogged \d s ago", shown[5])
    assert shown[6] == f"{queued.pk.hex[:8]}  Ada's  Queued  QUEUED  3 min  -  -"


def test_it_fits_80_columns_and_a_pipe_gets_whole_lines_without_colours(ada: Person) -> None:
    name = "a name of a run that is rather long, 模型 and wide, and goes on and on for no reason at all"
    make_run(ada, name=name)
    narrow, pipe = process(COLUMNS="80"), process()
    assert (narrow.returncode, pipe.returncode, narrow.stderr, pipe.stderr) == (0, 0, "", "")
    assert max(len(line) for line in narrow.stdout.splitlines()) <= 80
    assert "…" in narrow.stdout and name in pipe.stdout
    assert ESCAPE not in narrow.stdout + pipe.stdout


def test_what_people_named_their_things_is_no_command_to_a_terminal(ada: Person, capsys: Any) -> None:
    make_run(ada, name=f"{ESCAPE}[2J[red]")
    _, output, _ = jobs(capsys)
    assert ESCAPE not in output and "[2J[red]" in output


def test_filters_limits_and_ended_ones(running: TrainingRun, capsys: Any) -> None:
    charlie = make_person("Charlie")
    version = make_version(charlie, make_dataset(charlie, "Snippets"), status="QUEUED")
    failed = make_run(charlie, name="Failed", status="FAILED", error_code="NUMERICS", error_message="NaN at step 3.")

    def shown(*arguments: str) -> set[str]:
        report = json.loads(jobs(capsys, "--json", *arguments)[1])
        return {job["id"] for queue in report["queues"] for job in queue["jobs"]}

    assert shown() == {str(running.pk), str(version.pk)}
    assert shown("--queue", "datasets") == {str(version.pk)}
    assert shown("--organization", "ada's") == {str(running.pk)}
    assert shown("--organization", "charlie-s") == {str(version.pk)}
    assert shown("--organization", "charlie-s", "--all") >= {str(version.pk), str(failed.pk)}
    for number in range(3):
        make_run(charlie, name=f"{number}")
    assert len(shown("--queue", "training", "--limit", "2")) == 2
    assert len(shown("--queue", "training", "--limit", "0")) == 4
    assert "and 2 more: --limit 0 shows all" in jobs(capsys, "--queue", "training", "--limit", "2")[1]
    assert jobs(capsys, "--organization", "nobody") == (1, "", "No organization is called nobody.\n")


def test_json_has_all_of_it(running: TrainingRun, ada: Person, capsys: Any) -> None:
    report = json.loads(jobs(capsys, "--json", "--queue", "training")[1])
    assert report["keeper"] is False
    (queue,) = report["queues"]
    (job,) = queue.pop("jobs")
    assert queue == {
        "queue": "training",
        "kind": "training runs",
        "queued": 0,
        "running": 1,
        "stuck": 0,
        "workers": 0,
        "busy": 1,
        "rings_unheard": 0,
        "omitted": 0,
    }
    assert 50 < job.pop("lease_left_s") <= 60
    assert abs(timezone.now() - timezone.datetime.fromisoformat(job.pop("since"))) < timedelta(seconds=10)
    assert job.pop("why").startswith("step 120/800, StepLogged ")
    assert job == {
        "id": str(running.pk),
        "queue": "training",
        "organization": {"id": str(ada.organization.pk), "name": "Ada's"},
        "name": "Django's functions",
        "status": "RUNNING",
        "stuck": False,
        "cause": "AT_WORK",
        "attempt": 1,
        "unproductive_attempts": 1,
        "worker": "worker-7:4711",
        "child": {"host": "worker-7", "pid": 4712},
        "cancel_requested_at": None,
    }


def test_show_tells_all_of_one_job_its_last_events_and_its_childs_last_words(running: TrainingRun, capsys: Any) -> None:
    with operator():
        TrainingRun.objects.filter(pk=running.pk).advance([Event("LogLine", {"text": f"line {n}"}) for n in range(20)])
    folder = attempt_folder(running.pk, 1)
    folder.mkdir(parents=True)
    (folder / "child.log").write_text("".join(f"word {number}\n" for number in range(30)) + f"{ESCAPE}[31mKilled\n")
    status, output, errors = jobs(capsys, "show", running.pk.hex[:8])
    assert (status, errors) == (0, "")
    shown = lines(output)
    assert shown[:3] == [f"id            {running.pk}", "queue         training", "name          Django's functions"]
    for fact in ("worker        worker-7:4711", "child         process 4712 on worker-7"):
        assert fact in shown
    events = shown[shown.index("Last events") + 1 : shown.index("Last words of its child")]
    assert (len(events), events[-1].split()[0], events[-1].endswith("text line 19")) == (20, "22", True)
    words = shown[shown.index("Last words of its child") + 1 :]
    assert (len(words), words[0], words[-1]) == (20, "word 11", "[31mKilled")


def test_cancel_and_requeue_say_what_became_of_each_and_fail_for_what_was_refused(
    running: TrainingRun, ada: Person, capsys: Any
) -> None:
    queued = make_run(ada, name="Queued")
    a, b = running.pk.hex[:10], queued.pk.hex[:10]
    assert jobs(capsys, "requeue", a, b, "xyz") == (
        1,
        f"{a[:8]} Django's functions: queued again; its old child on worker-7 ends within a minute,"
        " and may write nothing more\n",
        f"{b[:8]} Queued: It is queued already.\n"
        "'xyz' is no id: one begins with hexadecimal digits, as 3f2a91c0 does.\n",
    )
    assert jobs(capsys, "cancel", a, b) == (
        0,
        f"{a[:8]} Django's functions: cancelled\n{b[:8]} Queued: cancelled\n",
        "",
    )
    with operator():
        statuses = {run.name: run.status for run in TrainingRun.objects.all()}
    assert statuses == {"Django's functions": JobStatus.CANCELLED, "Queued": JobStatus.CANCELLED}


class Listener(io.StringIO):
    """Notes whether what it hears is said within a transaction, which may still fail."""

    def __init__(self) -> None:
        super().__init__()
        self.within: list[bool] = []

    def write(self, text: str) -> int:
        self.within.append(connection.in_atomic_block)
        return super().write(text)


@pytest.mark.parametrize("verb", ["cancel", "requeue"])
def test_what_became_of_a_job_is_said_once_it_is_committed(
    running: TrainingRun, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    listener = Listener()
    monkeypatch.setattr(sys, "stdout", listener)
    call_command("jobs", verb, running.pk.hex)
    assert listener.getvalue().startswith(f"{running.pk.hex[:8]} Django's functions: ")
    assert set(listener.within) == {False}


def test_a_mistyped_id_is_a_line_that_says_what_to_do(db: None, capsys: Any) -> None:
    assert jobs(capsys, "show", "zzz") == (
        1,
        "",
        "'zzz' is no id: one begins with hexadecimal digits, as 3f2a91c0 does.\n",
    )


@pytest.mark.parametrize("arguments", [["--json"], ["cancel", "3f"]])
def test_a_database_that_is_away_is_a_line_too(db: None, arguments: list[str]) -> None:
    done = process(*arguments, DATABASE_URL="postgresql://nobody@%2Fnowhere/none")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("The database does not answer, or was not migrated: ")


@pytest.mark.parametrize(("form", "first"), [("--json", "{\n"), ("--queue training", "training: 200 queued")])
def test_a_reader_that_has_had_enough_is_no_error(ada: Person, form: str, first: str) -> None:
    version = make_version(ada)
    for _ in range(200):  # more than a pipe holds
        make_run(ada, version, name="x" * 150)
    command = f"{sys.executable} manage.py jobs {form} --limit 0 | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=settings.BASE_DIR, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith(first) and done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_watch_redraws_until_ctrl_c_and_gives_the_terminal_back(running: TrainingRun) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(settings.BASE_DIR)
        os.execve(
            sys.executable,
            [sys.executable, "manage.py", "jobs", "--watch"],
            {**environment(), "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        )
    seen, give_up_at = b"", time.monotonic() + 30
    try:
        while seen.count(b"training: ") < 3 and time.monotonic() < give_up_at:
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 65536)
        assert seen.count(b"training: ") == 3
        os.write(terminal, b"\x03")
        rest = b""
        while select.select([terminal], [], [], 5)[0]:
            try:
                rest += os.read(terminal, 65536)
            except OSError:
                break
    finally:
        os.kill(pid, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"\x1b[?1049h" in seen and b"\x1b[?1049l" in rest
    assert b"Traceback" not in rest
    os.close(terminal)


def test_versions_are_jobs_too(ada: Person, capsys: Any) -> None:
    version = make_version(ada, make_dataset(ada, "Snippets"), status="QUEUED", progress=0.35)
    assert claim(DatasetVersion, "here:1")
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).advance([Event("StepProgressed", {"name": "parse"})])
    assert "here:1: 35% done, StepProgressed " in jobs(capsys)[1]
