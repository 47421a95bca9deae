"""A mail server that is down, or that answers a sender who dies: each mail arrives once, and a repeat has the same id."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.faults import ledger
from tests.faults.injector import PROBE_SENDER, Injector
from tests.faults.installation import Installation
from tests.faults.proof import prove
from tests.faults.scripts import Behaviour, Script
from tests.faults.team import Team
from tests.mail import MailServer, Received, mail_server

pytestmark = [pytest.mark.faults, pytest.mark.slow]

DOWN_S = 60.0
UNSENT = "SELECT id FROM common_outboxmessage WHERE sent_at IS NULL"
AN_HOUR_PASSES = """UPDATE common_outboxmessage SET created_at = created_at - interval '1 hour',
    due_at = due_at - interval '1 hour' WHERE sent_at IS NULL RETURNING id"""
RECORDING = """SELECT pid FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE "common_outboxmessage" SET "sent_at"%%'"""
ALL = "SELECT id, event, recipient, sent_at, failed_at FROM common_outboxmessage"
DRAINED_WITHIN_S = 300.0  # after an hour; the pauses between two tries grow to five minutes


@pytest.fixture(scope="module")
def server() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture(scope="module")
def mailing(server: MailServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    root = tmp_path_factory.mktemp("mailing") / "platform"
    with Installation(root, environment={"EMAIL_URL": server.url}) as platform:
        yield platform


@pytest.fixture
def team(mailing: Installation, server: MailServer) -> Iterator[Team]:
    with Team(mailing) as team:
        wait_all_sent(mailing, DRAINED_WITHIN_S)  # what its sign-up says
        server.received.clear()
        yield team


def ids_of(server: MailServer, team: Team) -> Counter[str]:
    """How often each mail to this team has arrived."""
    return Counter(mail.message_id for mail in server.received if mail.recipient == team.email)


def wait_all_sent(platform: Installation, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while ledger.select(platform, UNSENT):
        assert time.monotonic() < deadline, ledger.select(platform, ALL)
        time.sleep(0.1)


def test_mails_of_an_outage_all_arrive_once_each(mailing: Installation, server: MailServer, team: Team) -> None:
    with Injector(mailing).mail_down(server):
        down_at = time.monotonic()
        runs = [team.start_run(steps=3) for _ in range(6)]
        failing = [team.start_run(Script(Behaviour.USER_ERROR, step_ms=10), steps=4) for _ in range(2)]
        statuses = [team.wait_ended(run, 120)["status"] for run in [*runs, *failing]]
        assert statuses == ["SUCCEEDED"] * 6 + ["FAILED"] * 2
        time.sleep(max(0.0, down_at + DOWN_S - time.monotonic()))
        assert len(ledger.select(mailing, AN_HOUR_PASSES)) == 8
    back_at = time.monotonic()
    wait_all_sent(mailing, DRAINED_WITHIN_S)
    print(f"all was sent {time.monotonic() - back_at:.1f} s after the server was back")
    assert sorted(ids_of(server, team).values()) == [1] * 8


def test_a_keeper_that_dies_before_its_commit_repeats_the_mail_under_the_same_id(
    mailing: Installation, server: MailServer, team: Team
) -> None:
    keeper = mailing.one("keeper")
    answered: list[str] = []

    with closing(mailing.servers.connect()) as owner, owner.cursor() as cursor:
        owner.autocommit = False

        def hold_up_the_commit(received: Received) -> None:
            if not answered and received.recipient != PROBE_SENDER:
                cursor.execute("LOCK TABLE common_outboxmessage IN SHARE MODE")
                answered.append(received.message_id)

        server.on_accept = hold_up_the_commit
        try:
            run = team.start_run(steps=3)
            prove("the keeper has the answer, and records it", lambda: bool(ledger.select(mailing, RECORDING)), 60)
            Injector(mailing).kill(keeper)
        finally:
            server.on_accept = lambda received: None
    assert team.wait_ended(run)["status"] == "SUCCEEDED"
    wait_all_sent(mailing, 180)  # whoever takes a mail has two minutes for it
    assert not keeper.is_there
    (mail,) = answered
    assert ids_of(server, team) == {mail: 2}
