"""The checker can go red: each promise's check passes over a history in order, and names what is wrong with one that is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from platform_site.engines.place import ROOT
from tests.faults.evidence import RUN, VERSION, Artefact, Event, Evidence, Job, Message, Upload
from tests.faults.history import Fault, Operation, Outcome, Watcher
from tests.faults.poison import GIVEN_BACK
from tests.faults.promises import PROMISES
from tests.faults.scripts import final_state
from tests.faults.witness import Record
from tests.mail import Received

pytestmark = pytest.mark.faults

ADA = "ada@faults.test"


def statuses(*names: str, reason: str | None = None) -> list[Event]:
    return [
        Event(sequence, "StatusChanged", name, reason if name == "QUEUED" and sequence > 1 else None)
        for sequence, name in enumerate(names, 1)
    ]


def told(
    number: int, verb: str, value: str, outcome: Outcome = Outcome.DONE, at: float = 10.0, **arguments: Any
) -> Operation:
    return Operation(number, ADA, verb, arguments, at, at + 0.1, outcome, value)


def mail(message: str, recipient: str = ADA) -> Received:
    return Received(f"<{message}@faults.test>", recipient, "", "", {})


def in_order() -> Evidence:
    """A version, a run that was resumed once, one that was cancelled, and one that was poison."""
    lost_once = ["QUEUED", "RUNNING", "QUEUED", "RUNNING"]
    jobs = [
        Job(VERSION, "version", ADA, "SUCCEEDED", "Rows", last_sequence=3, finished_at=5.0, rows_kept=30),
        Job(RUN, "resumed", ADA, "SUCCEEDED", "plain 50 ms", 2, 2, None, False, 5, 30.0, seed=7, steps=20),
        Job(RUN, "cancelled", ADA, "CANCELLED", "deaf 50 ms", 1, 1, None, True, 3, 50.0, seed=8, steps=20),
        Job(RUN, "poison", ADA, "FAILED", "poison-exit 50 ms", 3, 3, "POISON", False, 7, 40.0, seed=9, steps=20),
    ]
    return Evidence(
        jobs={job.id: job for job in jobs},
        events={
            "version": statuses("QUEUED", "RUNNING", "SUCCEEDED"),
            "resumed": statuses(*lost_once, "SUCCEEDED"),
            "cancelled": statuses("QUEUED", "RUNNING", "CANCELLED"),
            "poison": statuses(*lost_once, "QUEUED", "RUNNING", "FAILED"),
        },
        operations=[
            told(1, "upload", "upload", sha256="abc"),
            told(2, "create_dataset", "version", name="Rows"),
            told(3, "start_run", "resumed", seed=7),
            told(4, "start_run", "cancelled", seed=8),
            told(5, "start_run", "poison", seed=9),
            told(6, "start_run", "not a name", Outcome.REFUSED, seed=10),
            told(7, "cancel", "RUNNING", at=20.0, job="cancelled"),
            told(8, "look", "CANCELLED", at=60.0, job="cancelled"),
        ],
        faults=[Fault("kill", "trainer", 9.0, 9.0, "resumed")],
        watchers=[Watcher(1, "resumed", [1, 2, 3, 4, 5], "SUCCEEDED", 2)],
        witness=[
            Record("resumed", 1, 11, "started", 0, 10.0),
            *(Record("resumed", 1, 11, "step", step, 10.0 + step / 10) for step in range(1, 6)),
            Record("resumed", 1, 11, "checkpoint", 5, 11.0),
            Record("resumed", 1, 11, "step", 6, 11.1),
            Record("resumed", 1, 11, "step", 7, 11.2),
            Record("resumed", 2, 12, "started", 0, 20.0),
            Record("resumed", 2, 12, "step", 6, 20.1),
            Record("resumed", 2, 12, "finished", 20, 29.0),
            Record("cancelled", 1, 13, "step", 1, 49.0),
        ],
        uploads={"upload": Upload("upload", True, "abc", "abc")},
        artefacts={
            "version": Artefact("version", "its manifest", "its manifest", rows=30),
            "resumed": Artefact("resumed", "d", "d", state=final_state(7, 20).hex()),
        },
        messages=[
            Message("m1", "training-run/resumed/SUCCEEDED", ADA, True),
            Message("m2", "training-run/poison/FAILED", ADA, True),
            Message("m0", "email-verification/first", ADA, True),
        ],
        mails=[mail("m1"), mail("m2"), mail("m0")],
    )


def changed(job: str, **fields: Any) -> Callable[[Evidence], None]:
    def change(seen: Evidence) -> None:
        seen.jobs[job] = replace(seen.jobs[job], **fields)

    return change


def logged(job: str, *names: str, reason: str | None = None) -> Callable[[Evidence], None]:
    def change(seen: Evidence) -> None:
        seen.events[job] = statuses(*names, reason=reason)
        begun = names.count("RUNNING")
        seen.jobs[job] = replace(seen.jobs[job], last_sequence=len(names), attempt=begun, fence=begun)

    return change


def added(field: str, *items: Any) -> Callable[[Evidence], None]:
    return lambda seen: setattr(seen, field, [*getattr(seen, field), *items])


def without(field: str, key: str) -> Callable[[Evidence], None]:
    return lambda seen: getattr(seen, field).pop(key) and None


def artefact(job: str, **fields: Any) -> Callable[[Evidence], None]:
    def change(seen: Evidence) -> None:
        seen.artefacts[job] = replace(seen.artefacts[job], **fields)

    return change


def began_at(step: int) -> Callable[[Evidence], None]:
    """With which step the second attempt of the resumed run began."""

    def change(seen: Evidence) -> None:
        index = next(n for n, record in enumerate(seen.witness) if (record.fence, record.event) == (2, "step"))
        seen.witness[index] = replace(seen.witness[index], step=step)

    return change


def doubled_event(seen: Evidence) -> None:
    seen.events["resumed"].insert(3, seen.events["resumed"][2])


def heard(*sequences: int) -> Callable[[Evidence], None]:
    return lambda seen: setattr(seen, "watchers", [Watcher(1, "resumed", list(sequences), "SUCCEEDED", 2)])


def struck(name: str, target: str, run: str | None = None) -> Callable[[Evidence], None]:
    return lambda seen: setattr(seen, "faults", [Fault(name, target, 9.0, 9.0, run)])


def unavailable(status: int, retry_after_s: float | None) -> Operation:
    return replace(told(9, "look", "", Outcome.UNCLEAR, job="resumed"), status=status, retry_after_s=retry_after_s)


BROKEN = [
    ("1", without("jobs", "resumed"), "start_run .* was acknowledged as resumed, which does not exist"),
    ("1", without("jobs", "version"), "create_dataset .* was acknowledged as version, which does not exist"),
    ("1", without("uploads", "upload"), "upload .* was acknowledged as upload, which is not there"),
    (
        "1",
        lambda seen: seen.uploads.update(upload=Upload("upload", True, "abc", None)),
        "stored with other bytes: None",
    ),
    ("1", changed("resumed", seed=10), "was REFUSED, and there are 1 jobs of it"),
    ("1", lambda seen: seen.jobs.update(twin=replace(seen.jobs["resumed"], id="twin")), "and there are 2 jobs of it"),
    ("2", added("unsettled", "TrainingRun x is QUEUED"), "not in time: TrainingRun x is QUEUED"),
    ("2", doubled_event, "its sequences are 1-3, 3-5"),
    ("2", lambda seen: seen.events["resumed"].pop(2), "its sequences are 1-2, 4-5"),
    ("2", changed("resumed", last_sequence=6), "its sequences are 1-5, its row says 6"),
    ("2", changed("resumed", status="RUNNING"), "is RUNNING and never ended"),
    ("2", changed("resumed", status="FAILED"), "is FAILED, its log says .*'SUCCEEDED'"),
    ("2", logged("resumed", "QUEUED", "RUNNING", "CANCELLED", "SUCCEEDED"), "is SUCCEEDED, its log says"),
    ("2", logged("resumed", "QUEUED", "RUNNING", "SUCCEEDED", "QUEUED"), "went through"),
    ("2", logged("resumed", "QUEUED", "RUNNING", "RUNNING", "SUCCEEDED"), "went through"),
    ("2", changed("resumed", fence=3), "its fence 3"),
    (
        "2",
        added("operations", told(9, "look", "RUNNING", at=70.0, job="cancelled")),
        "RUNNING after CANCELLED had been told",
    ),
    ("3", added("witness", Record("resumed", 2, 12, "SECOND_HOLDER", 0, 20.0)), "began while another one was at work"),
    ("3", added("witness", Record("resumed", 1, 11, "step", 9, 21.0)), "fence 1 wrote step 9 1.0 s after fence 2"),
    ("3", added("witness", Record("resumed", 2, 14, "step", 9, 21.0)), "two trainers, 12 and 14, had fence 2"),
    ("3", added("witness", Record("resumed", 3, 14, "started", 0, 40.0)), "had fence 3, and the row has 2"),
    ("4", logged("poison", "QUEUED", "RUNNING", "QUEUED", "RUNNING", "FAILED"), "is POISON after 2 attempts"),
    ("4", logged("poison", *["QUEUED", "RUNNING"] * 4, "FAILED"), "was begun 4 times in a row without progress"),
    ("4", logged("poison", *["QUEUED", "RUNNING"] * 3, "FAILED", reason=GIVEN_BACK[0]), "is POISON after 1 attempts"),
    ("4", added("witness", Record("poison", 2, 14, "checkpoint", 2, 30.0)), "is POISON after 1 attempts"),
    ("4", changed("resumed", status="FAILED", error_code="BROKEN"), "ended as FAILED BROKEN"),
    ("4", changed("poison", status="SUCCEEDED", error_code=None), "ended as SUCCEEDED None"),
    ("4", changed("resumed", status="FAILED", error_code="POISON"), "ended as FAILED POISON"),
    ("4", lambda seen: setattr(seen, "faults", []), "begun 2 times, with 0 faults"),
    ("4", struck("kill", "trainer", "another"), "begun 2 times, with 0 faults"),
    ("4", struck("pause", "training busy worker", "another"), "begun 2 times, with 0 faults"),
    ("4", struck("kill", "datasets sentinel"), "begun 2 times, with 0 faults"),
    ("4", struck("kill", "guard keeper"), "begun 2 times, with 0 faults"),
    ("4", struck("torn-checkpoint", "", "another"), "begun 2 times, with 0 faults"),
    ("5", lambda seen: seen.messages.pop(1), "is FAILED, and nobody is to be told"),
    ("5", added("messages", Message("m3", "training-run/resumed/SUCCEEDED", ADA, True)), "4 rows of 3 events"),
    ("5", added("messages", Message("m3", "training-run/cancelled/CANCELLED", ADA, True)), "there is mail about it"),
    ("5", added("messages", Message("m3", "training-run/resumed/FAILED", ADA, True)), "which did not happen"),
    ("5", added("messages", Message("m3", "email-verification/second", ADA, True)), "once, and 2 mails say so"),
    ("5", lambda seen: seen.mails.pop(1), "m2.* was received 0 times"),
    ("5", added("mails", mail("m1")), "was received 2 times, and nothing had torn"),
    ("5", added("mails", mail("m3")), "Message-ID m3 belongs to no row"),
    ("5", added("mails", mail("m1", "bob@faults.test")), "went to .*bob"),
    ("6", without("artefacts", "resumed"), "is SUCCEEDED, and has no artefact"),
    ("6", artefact("resumed", stored_digest="e"), "should be d, and is e"),
    ("6", artefact("version", problem="ArrowInvalid"), "does not load: ArrowInvalid"),
    ("6", artefact("version", rows=29), "kept 30 rows, and its files have 29"),
    ("6", changed("resumed", status="FAILED"), "is FAILED, and has Artefact"),
    ("7", added("left_behind", "process 17 (trainer)"), "left behind: process 17"),
    ("7", added("orphans", "t/1/adapters/2/0001"), "left behind in storage"),
    ("7", lambda seen: seen.unnamed_uploads.update({ADA: ["t/1/uploads/2/3"]}), "t/1/uploads/2/3'., and 0 uploads of"),
    ("8", changed("cancelled", status="SUCCEEDED"), "said RUNNING, and .* is SUCCEEDED"),
    (
        "8",
        added("witness", Record("cancelled", 1, 13, "step", 4, 56.0)),
        "wrote 35.9 s after its cancel was acknowledged",
    ),
    ("8", added("witness", Record("cancelled", 1, 13, "step", 4, 86.0)), "wrote 36.0 s after it was CANCELLED"),
    ("8", changed("cancelled", cancel_requested=False), "nobody asked for it"),
    ("9", artefact("resumed", state="00"), "after 2 attempts its adapter is 00"),
    ("9", lambda seen: seen.witness.pop(6), "fence 2 began with step 6, and the newest checkpoint was of step 0"),
    ("9", began_at(5), "fence 2 began with step 5, and the newest checkpoint was of step 5"),
    ("9", began_at(9), "fence 2 began with step 9, and the newest checkpoint was of step 5"),
    ("watchers", heard(1, 2, 4, 5), "heard 1-2, 4-5 over 2 connections"),
    ("watchers", heard(1, 2, 3, 3, 4, 5), "heard 1-3, 3-5"),
    ("watchers", heard(1, 2, 3), "heard 1-3"),
    ("watchers", heard(1, 3, 2, 4, 5), "heard 1, 3, 2, 4-5"),
    ("answers", added("operations", unavailable(503, None)), "503 without Retry-After"),
    ("answers", added("operations", unavailable(200, None)), "was answered 200"),
]


def violations(seen: Evidence) -> dict[str, list[str]]:
    return {name: found for name, check in PROMISES.items() if (found := list(check(seen)))}


def test_what_is_in_order_breaks_no_promise() -> None:
    seen = in_order()
    assert violations(seen) == {}
    seen.operations = [*seen.operations, unavailable(503, 5.0)]
    assert violations(seen) == {}


def test_who_was_killed_between_the_last_save_and_the_word_of_it_has_saved_all_the_same() -> None:
    seen = in_order()
    began_at(8)(seen)
    assert violations(seen) == {}


@pytest.mark.parametrize(
    ("promise", "sabotage", "said"), BROKEN, ids=[f"{promise}-{said}" for promise, _, said in BROKEN]
)
def test_what_is_not_is_found_and_named(promise: str, sabotage: Callable[[Evidence], None], said: str) -> None:
    seen = in_order()
    sabotage(seen)
    (found,) = [texts for name, texts in violations(seen).items() if name.split()[0] == promise]
    assert any(re.search(said, text) for text in found), found


@pytest.mark.parametrize("reason", GIVEN_BACK)
def test_a_job_is_given_back_in_the_words_that_its_worker_uses(reason: str) -> None:
    assert f'"{reason}"' in (ROOT / "common" / "supervision.py").read_text()


def test_a_mail_may_come_twice_only_where_something_was_torn_away() -> None:
    seen = in_order()
    seen.mails = [*seen.mails, mail("m1")]
    seen.faults = [Fault("kill", "trainer", 10.0, 10.0)]
    assert list(violations(seen)) == ["5 mail is sent"]
    seen.faults = [*seen.faults, Fault("kill", "keeper", 10.0, 10.0)]
    assert violations(seen) == {}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("kill", "training sentinel", 9.0, 9.0),
        Fault("kill-cluster", "training", 9.0, 9.0),
        Fault("stop-all", "up", 9.0, 12.0),
        Fault("redis-away", "", 9.0, 12.0),
        Fault("postgres-pause", "", 9.0, 12.0),
        Fault("kill", "training busy worker", 9.0, 9.0, "resumed"),
        Fault("torn-checkpoint", "", 9.0, 9.0, "resumed"),
        Fault("pause", "training busy worker", 9.0, 9.0, None),  # nobody knows whose it was
    ],
    ids=lambda fault: f"{fault.name} {fault.target}",
)
def test_an_attempt_may_be_cut_short_by_what_concerns_it(fault: Fault) -> None:
    seen = in_order()
    seen.faults = [fault]
    assert violations(seen) == {}


def test_an_upload_that_was_cut_off_may_leave_one_file() -> None:
    seen = in_order()
    seen.operations = [*seen.operations, told(9, "upload", "", Outcome.UNCLEAR)]
    seen.unnamed_uploads = {ADA: ["t/1/uploads/2/3"]}
    assert violations(seen) == {}
    seen.unnamed_uploads = {ADA: ["t/1/uploads/2/3", "t/1/uploads/2/4"]}
    assert list(violations(seen)) == ["7 nothing is left"]


STOOD_STILL = Fault("pause", "training busy worker", 15.0, 58.0, "cancelled")


@pytest.mark.parametrize("fault", [STOOD_STILL, Fault("postgres-away", "", 15.0, 58.0)], ids=lambda fault: fault.name)
def test_a_cancel_may_be_late_where_a_fault_kept_it(fault: Fault) -> None:
    assert violations(cancelled_late(fault)) == {}


@pytest.mark.parametrize(
    "fault",
    [
        replace(STOOD_STILL, began=70.0, ended=90.0),  # long after the cancel at 20
        replace(STOOD_STILL, run="resumed"),
        replace(STOOD_STILL, name="kill"),  # its trainer ends with it
        replace(STOOD_STILL, target="web"),
        replace(STOOD_STILL, target="trainer"),
    ],
    ids=["later", "another run's worker", "killed", "web", "trainer"],
)
def test_and_nowhere_else(fault: Fault) -> None:
    assert list(violations(cancelled_late(fault))) == ["8 cancels are kept"]


def cancelled_late(fault: Fault) -> Evidence:
    seen = in_order()
    seen.witness = [*seen.witness, Record("cancelled", 1, 13, "step", 4, 60.0)]
    seen.faults = [*seen.faults, fault]
    return seen
