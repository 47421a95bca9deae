"""The promises of the platform, each a function from the evidence to the violations that it shows, in words.

    1 an acknowledged submission exists          2 a job ends once, and its log says the same as its row
    3 no two hold one job at a time              4 three attempts without progress are POISON, and nothing else is
    5 one mail for each ended job, sent          6 SUCCEEDED means that the artefact is there, whole, and loads
    7 nothing is left behind                     8 CANCELLED means no write after 35 s; a cancel is kept
    9 a resumed run equals the uninterrupted one

and beside them: a watcher hears each event once, in order, and an error is one that a client can act upon.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from tests.faults.evidence import ENDED, RUN, VERSION, Event, Evidence, Job
from tests.faults.history import Fault, Operation, Outcome
from tests.faults.poison import HOLDER, poison_is_found
from tests.faults.scripts import final_state

STOPPED_WITHIN_S = 35.0
NOTICED_WITHIN_S = 10.0  # within which the loss of a process is made good


def submissions_exist(seen: Evidence) -> Iterator[str]:
    """1: what was acknowledged is there, what was refused is not, and nothing is there twice."""
    by_seed = Counter((job.client, job.seed) for job in seen.runs)
    by_name = Counter((job.client, job.name) for job in seen.jobs.values() if job.kind == VERSION)
    for operation in seen.operations:
        if operation.verb == "upload":
            yield from _upload_exists(seen, operation)
        elif operation.verb in ("start_run", "create_dataset"):
            if operation.is_done and operation.value not in seen.jobs:
                yield f"{_told(operation)} was acknowledged as {operation.value}, which does not exist"
            is_run = operation.verb == "start_run"
            key = (operation.client, operation.arguments["seed" if is_run else "name"])
            count = (by_seed if is_run else by_name)[key]
            if count > (operation.outcome is not Outcome.REFUSED):
                yield f"{_told(operation)} was {operation.outcome}, and there are {count} jobs of it"


def _upload_exists(seen: Evidence, operation: Operation) -> Iterator[str]:
    if not operation.is_done:
        return
    found = seen.uploads.get(operation.value)
    if found is None or not found.completed:
        yield f"{_told(operation)} was acknowledged as {operation.value}, which is {found or 'not there'}"
    elif found.stored_sha256 != operation.arguments["sha256"] or found.sha256 != found.stored_sha256:
        yield f"upload {found.id} is stored with other bytes: {found.stored_sha256}, not {operation.arguments['sha256']}"


def jobs_end_once(seen: Evidence) -> Iterator[str]:
    """2: exactly one terminal status, in time, last in a log without gaps, and the row agrees."""
    yield from (f"not in time: {what}" for what in seen.unsettled)
    for job in seen.jobs.values():
        log = seen.events.get(job.id, [])
        sequences = [event.sequence for event in log]
        if sequences != list(range(1, len(log) + 1)) or job.last_sequence != len(log):
            yield f"{job}: its sequences are {_short(sequences)}, its row says {job.last_sequence}"
        statuses = [event.status for event in log if event.kind == "StatusChanged"]
        if not job.has_ended:
            yield f"{job} is {job.status} and never ended: {statuses}"
            continue
        ends = [event for event in log if event.status in ENDED]
        if [event.status for event in ends] != [job.status] or log[-1] is not ends[0]:
            yield f"{job} is {job.status}, its log says {statuses}, and its last event is {log[-1] if log else None}"
        if not _is_a_life(statuses):
            yield f"{job} went through {statuses}"
        if statuses.count("RUNNING") != job.attempt or job.fence != job.attempt:
            yield f"{job} has begun {statuses.count('RUNNING')} times, its attempt is {job.attempt}, its fence {job.fence}"
    yield from _never_left_an_end(seen)


def _is_a_life(statuses: list[str | None]) -> bool:
    allowed = {None: {"QUEUED"}, "QUEUED": {"RUNNING", "CANCELLED"}, "RUNNING": {"QUEUED", *ENDED}}
    before: str | None = None
    for status in statuses:
        if status not in allowed.get(before, set()):
            return False
        before = status
    return True


def _never_left_an_end(seen: Evidence) -> Iterator[str]:
    """Once a client was told of an end, nobody is told anything else."""
    ended: dict[str, tuple[float, str]] = {}
    for operation in sorted(seen.operations, key=lambda each: each.ended):
        if operation.verb in ("look", "cancel") and operation.is_done and operation.value in ENDED:
            ended.setdefault(operation.arguments["job"], (operation.ended, operation.value))
    for operation in seen.operations:
        if operation.verb in ("look", "cancel") and operation.is_done:
            at, status = ended.get(operation.arguments["job"], (float("inf"), ""))
            if operation.began > at and operation.value != status:
                yield f"{_told(operation)} said {operation.value} after {status} had been told"


def one_holder(seen: Evidence) -> Iterator[str]:
    """3: trainers of one job never overlap, and each has the fence after the last one's."""
    of_job = defaultdict(list)
    for record in seen.witness:
        of_job[record.job].append(record)
    for job_id, records in of_job.items():
        records.sort(key=lambda record: record.at)
        for record in records:
            if record.event == "SECOND_HOLDER":
                yield f"job {job_id}: trainer {record.pid} (fence {record.fence}) began while another one was at work"
        highest = records[0]
        for record in records:
            if record.fence < highest.fence:
                yield (
                    f"job {job_id}: fence {record.fence} wrote {record.event} {record.step} "
                    f"{record.at - highest.at:.1f} s after fence {highest.fence} had written"
                )
                break
            if record.fence == highest.fence and record.pid != highest.pid:
                yield f"job {job_id}: two trainers, {highest.pid} and {record.pid}, had fence {record.fence}"
                break
            highest = record if record.fence > highest.fence else highest
        job = seen.jobs.get(job_id)
        if job is not None and highest.fence > job.fence:
            yield f"{job}: a trainer had fence {highest.fence}, and the row has {job.fence}"


def mail_is_sent(seen: Evidence) -> Iterator[str]:
    """5: one row of the outbox for each sign-up, and for each ended job and its creator, sent; a repeat has the same
    Message-ID, and a reason."""
    rows = {(message.event, message.recipient): message for message in seen.messages}
    if len(rows) != len(seen.messages):
        yield f"the outbox has {len(seen.messages)} rows of {len(rows)} events"
    wanted = {key for key in rows if key[0].startswith("email-verification/")}
    for client, count in Counter(recipient for _, recipient in wanted).items():
        if count > 1:
            yield f"{client} has signed up once, and {count} mails say so"
    for job in seen.jobs.values():
        event = f"{'training-run' if job.kind == RUN else 'dataset-version'}/{job.id}/{job.status}"
        wanted.add((event, job.client))
        row = rows.get((event, job.client))
        is_due = job.status == "FAILED" or (job.status == "SUCCEEDED" and job.kind == RUN)
        if is_due and row is None:
            yield f"{job} is {job.status}, and nobody is to be told"
        elif row is not None and job.status == "CANCELLED":
            yield f"{job} was cancelled, and there is mail about it"
    yield from (f"the outbox has {key}, which did not happen" for key in rows.keys() - wanted)
    sent = defaultdict(list)
    for mail in seen.mails:
        sent[mail.message_id.strip("<>").partition("@")[0]].append(mail)
    for message in seen.messages:
        mails = sent.pop(message.id, [])
        if not message.is_sent or not mails:
            yield f"{message} was received {len(mails)} times"
        if any(mail.recipient != message.recipient for mail in mails):
            yield f"{message} went to {[mail.recipient for mail in mails]}"
        if len(mails) > 1 and not _may_repeat(seen):
            yield f"{message} was received {len(mails)} times, and nothing had torn an answer or a commit away"
    yield from (f"a mail with Message-ID {key} belongs to no row of the outbox" for key in sent)


def _may_repeat(seen: Evidence) -> bool:
    """Whether anything happened that can lose an answer or a commit."""
    return any(
        fault.name
        in ("mail-loses", "mail-down", "postgres-away", "postgres-restart", "postgres-kill", "postgres-pause")
        or fault.target in ("keeper", "guard keeper", "up")
        for fault in seen.faults
    )


def artefacts_are_whole(seen: Evidence) -> Iterator[str]:
    """6: what SUCCEEDED has its artefact, with the digest that was told, and it loads; what did not has none."""
    for job in seen.jobs.values():
        found = seen.artefacts.get(job.id)
        if job.status != "SUCCEEDED":
            if found is not None:
                yield f"{job} is {job.status}, and has {found}"
        elif found is None:
            yield f"{job} is SUCCEEDED, and has no artefact"
        elif found.problem is not None:
            yield f"{job}: its artefact does not load: {found.problem}"
        elif found.digest != found.stored_digest:
            yield f"{job}: its artefact should be {found.digest}, and is {found.stored_digest}"
        elif job.kind == VERSION and found.rows != job.rows_kept:
            yield f"{job}: it kept {job.rows_kept} rows, and its files have {found.rows}"


def nothing_is_left(seen: Evidence) -> Iterator[str]:
    """7: no process, no folder, no lock, no temporary file, and no stored file of an attempt that did not make it.

    An upload that was cut off between the storing of its file and the change of its row leaves that file: one each.
    """
    yield from (f"left behind: {what}" for what in seen.left_behind)
    yield from (f"left behind in storage: {prefix}" for prefix in seen.orphans)
    for client, keys in seen.unnamed_uploads.items():
        cut_off = sum(
            operation.verb == "upload" and operation.outcome is Outcome.UNCLEAR and operation.client == client
            for operation in seen.operations
        )
        if len(keys) > cut_off:
            yield f"left behind in storage: {keys}, and {cut_off} uploads of {client} were cut off"


def cancels_are_kept(seen: Evidence) -> Iterator[str]:
    """8: an acknowledged cancel of an unfinished job ends it as CANCELLED, and then nothing of it is written any more."""
    last_write: dict[str, float] = {}
    for record in seen.witness:
        last_write[record.job] = max(record.at, last_write.get(record.job, 0.0))
    for operation in seen.operations:
        if operation.verb != "cancel" or not operation.is_done:
            continue
        job = seen.jobs[operation.arguments["job"]]
        expected = operation.value if operation.value in ENDED else "CANCELLED"
        if job.status != expected:
            yield f"{_told(operation)} said {operation.value}, and {job} is {job.status}"
        late_s = last_write.get(job.id, 0.0) - operation.ended
        if expected == "CANCELLED" and late_s > STOPPED_WITHIN_S and not _was_hindered(job, operation.ended, seen):
            yield f"{job}: its trainer wrote {late_s:.1f} s after its cancel was acknowledged"
    for job in seen.jobs.values():
        if job.status == "CANCELLED" and job.finished_at is not None:
            late_s = last_write.get(job.id, 0.0) - job.finished_at
            if late_s > STOPPED_WITHIN_S:
                yield f"{job}: its trainer wrote {late_s:.1f} s after it was CANCELLED"
            if not job.cancel_requested:
                yield f"{job} is CANCELLED, and nobody asked for it"


def _was_hindered(job: Job, at: float, seen: Evidence) -> bool:
    """Whether a fault kept a cancel from the worker that carries it out."""
    return any(
        _keeps_from_cancelling(fault, job)
        and fault.began < at + STOPPED_WITHIN_S
        and (fault.ended is None or fault.ended > at - NOTICED_WITHIN_S)
        for fault in seen.faults
    )


def _keeps_from_cancelling(fault: Fault, job: Job) -> bool:
    """No database, or a holder that stands still. One that is killed is no excuse: its trainer ends with it."""
    holder_stands_still = fault.target == HOLDER and fault.name.startswith("pause") and fault.run in (None, job.id)
    return holder_stands_still or fault.name.startswith("postgres")


def resumed_equals_straight(seen: Evidence) -> Iterator[str]:
    """9: an attempt goes on from the newest checkpoint, and an adapter is what one attempt would have made, bit for bit."""
    if not any(fault.name == "torn-checkpoint" for fault in seen.faults):
        yield from _goes_on_from_the_newest(seen)
    for job in seen.runs:
        found = seen.artefacts.get(job.id)
        if job.status == "SUCCEEDED" and found is not None and found.state is not None:
            straight = final_state(job.seed, job.steps).hex()
            if found.state != straight:
                yield f"{job}: after {job.attempt} attempts its adapter is {found.state}, not {straight}"


def _goes_on_from_the_newest(seen: Evidence) -> Iterator[str]:
    """A trainer that was killed when it had just saved its last step could not say so any more."""
    newest: dict[str, int] = {}
    last: dict[str, int] = {}
    begun: set[tuple[str, int]] = set()
    for record in sorted(seen.witness, key=lambda record: (record.job, record.fence, record.at)):
        if record.event == "checkpoint":
            newest[record.job] = max(record.step, newest.get(record.job, 0))
        elif record.event == "step":
            saved = newest.get(record.job, 0)
            is_first = (record.job, record.fence) not in begun
            if is_first and record.step - 1 not in (saved, last.get(record.job)):
                yield (
                    f"job {record.job}: fence {record.fence} began with step {record.step}, "
                    f"and the newest checkpoint was of step {saved}"
                )
            begun.add((record.job, record.fence))
            newest[record.job] = max(saved, record.step - 1) if is_first else saved
            last[record.job] = record.step


def watchers_hear_all(seen: Evidence) -> Iterator[str]:
    """Each watcher hears each event exactly once, in order, to the end, over all its connections."""
    for watcher in seen.watchers:
        job = seen.jobs.get(watcher.job)
        if job is None:
            yield f"watcher {watcher.number} watched {watcher.job}, which does not exist"
            continue
        log: list[Event] = seen.events.get(job.id, [])
        if watcher.heard != [event.sequence for event in log] or watcher.last_status != job.status:
            yield (
                f"watcher {watcher.number} of {job} heard {_short(watcher.heard)} over {watcher.connections} connections, "
                f"last {watcher.last_status}; the log has {len(log)} events and ends as {job.status}"
            )


def answers_are_honest(seen: Evidence) -> Iterator[str]:
    """What cannot be answered now is a 503 that says when to try again, and never an unexpected error."""
    for operation in seen.operations:
        if operation.status == 503 and operation.retry_after_s is None:
            yield f"{_told(operation)} was answered 503 without Retry-After"
        elif operation.outcome is Outcome.UNCLEAR and operation.status not in (None, 503):
            yield f"{_told(operation)} was answered {operation.status}: {operation.value}"


PROMISES: dict[str, Callable[[Evidence], Iterator[str]]] = {
    "1 submissions exist": submissions_exist,
    "2 jobs end once": jobs_end_once,
    "3 one holder": one_holder,
    "4 poison is found": poison_is_found,
    "5 mail is sent": mail_is_sent,
    "6 artefacts are whole": artefacts_are_whole,
    "7 nothing is left": nothing_is_left,
    "8 cancels are kept": cancels_are_kept,
    "9 resumed equals straight": resumed_equals_straight,
    "watchers hear all": watchers_hear_all,
    "answers are honest": answers_are_honest,
}


def _told(operation: Operation) -> str:
    return f"operation {operation.number}, {operation.verb} of {operation.client} {operation.arguments}"


def _short(sequences: list[int]) -> str:
    """1-7, 9, 9-12"""
    parts: list[list[int]] = []
    for number in sequences:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, dict.fromkeys(part))) for part in parts) or "nothing"
