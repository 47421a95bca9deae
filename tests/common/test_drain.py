"""Mail leaves the outbox once, whatever becomes of the answer, the database, or the process that sends it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg2
import pytest
from django.db import connection
from django.db.models.functions import Now

from common.drain import MAX_PER_CONNECTION, Drain, delay_s, draining
from common.models import OutboxKind, OutboxMessage, OutboxState
from common.outages import AWAY
from common.tenancy import operator
from tests.mail import Answer, MailServer, Received
from tests.outbox import get, in_s, make_due, outbox_server, put, recipients, states
from tests.processes import start_manage, start_python

pytestmark = pytest.mark.django_db(transaction=True)

SEND_DUE = """
from common.drain import Drain
print("ready", flush=True)
print(Drain().send_due())
"""


@pytest.fixture
def server(settings: Any) -> Iterator[MailServer]:
    with outbox_server(settings) as server:
        yield server


def own_backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def as_database_owner() -> Any:
    params = connection.get_connection_params()
    return psycopg2.connect(
        **{name: params[name] for name in ("dbname", "user", "password", "host", "port") if name in params}
    )


def is_anybody_held_up() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(  # of this database: the server has those of other tests, too
            """SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database
               WHERE NOT granted AND datname = current_database() AND relation = 'common_outboxmessage'::regclass)"""
        )
        return bool(cursor.fetchone()[0])


def disconnect(which: str, pid: int) -> None:
    """Break the connections to the database that `which` names."""
    owner = as_database_owner()
    with owner, owner.cursor() as cursor:
        cursor.execute(
            f"""SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND {which}""",
            [pid],
        )
        broken = cursor.fetchall()
        assert broken
        assert set(broken) == {(True,)}
    owner.close()


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "this did not come true in time"
        time.sleep(0.02)


def test_what_is_due_is_sent_once(server: MailServer) -> None:
    with operator():
        message = OutboxMessage.objects.create(
            event="hello", recipient="zoe@bücher.example", subject="Grüße an Zoë 🎈", body="Schöne Grüße\n.\n"
        )
    message = get(message)
    assert [Drain().send_due(), Drain().send_due()] == [1, 0]
    (received,) = server.received
    assert (received.subject, received.body) == ("Grüße an Zoë 🎈", "Schöne Grüße\n.\n")
    assert received.recipient == "zoe@xn--bcher-kva.example"
    assert received.message_id == f"<{message.pk}@example.com>"
    assert received.headers["From"] == "Platform <platform@example.com>"
    assert received.headers["Auto-Submitted"] == "auto-generated"
    assert received.headers["Date"] == f"{message.created_at:%a, %d %b %Y %H:%M:%S +0000}"
    sent = get(message)
    assert (sent.state, sent.attempts, sent.last_error) == (OutboxState.SENT, 1, "")
    assert sent.body == "", "it may have brought a token"


def test_nothing_due_asks_no_server(server: MailServer) -> None:
    (message,) = put("bob@example.com")
    with operator():
        OutboxMessage.objects.update(due_at=Now() + timedelta(minutes=1))
    assert Drain().send_due() == 0
    assert (server.connections, get(message).attempts) == (0, 0)


def test_a_batch_goes_over_one_connection(server: MailServer) -> None:
    put(*(f"{number}@example.com" for number in range(MAX_PER_CONNECTION + 1)))
    assert [(Drain().send_due(), server.connections) for _ in range(2)] == [(MAX_PER_CONNECTION, 1), (1, 2)]
    assert len(set(recipients(server))) == len(server.received) == MAX_PER_CONNECTION + 1


def test_a_lost_answer_is_followed_by_a_repeat_with_the_same_message_id(server: MailServer) -> None:
    server.answer = Answer.LOSE
    put("bob@example.com")
    assert Drain().send_due() == 0
    server.answer = Answer.ACCEPT
    make_due()
    assert Drain().send_due() == 1
    first, second = server.received
    assert first.message_id == second.message_id
    assert Drain().send_due() == 0


def test_a_sender_killed_between_the_answer_and_its_commit_is_followed_by_a_repeat_with_the_same_message_id(
    server: MailServer,
) -> None:
    _, bob = put("alice@example.com", "bob@example.com")

    with closing(as_database_owner()) as owner, owner.cursor() as cursor:

        def hold_up_its_commit(received: Received) -> None:
            if received.recipient == "bob@example.com":
                cursor.execute("LOCK TABLE common_outboxmessage IN SHARE MODE")

        server.on_accept = hold_up_its_commit
        sender = start_python(SEND_DUE, EMAIL_URL=server.url, MAIL_FROM="platform@example.com")
        eventually(is_anybody_held_up, timeout_s=60)  # it has the answer, and records it
        sender.kill()
        assert sender.wait(timeout=60) == -signal.SIGKILL
    assert recipients(server) == ["alice@example.com", "bob@example.com"]
    assert states() == {"alice@example.com": OutboxState.SENT, "bob@example.com": OutboxState.WAITING}
    assert 60 < in_s(get(bob)) <= 120

    server.on_accept = lambda received: None
    assert Drain().send_due() == 0, "it is not repeated before it is sure that nobody is sending it"
    make_due()
    assert [Drain().send_due(), Drain().send_due()] == [1, 0]
    assert recipients(server)[2:] == ["bob@example.com"]
    assert server.received[2].message_id == server.received[1].message_id
    assert get(bob).attempts == 2


def test_a_database_lost_between_the_answer_and_the_commit_makes_no_repeat(server: MailServer) -> None:
    put("bob@example.com")
    own = own_backend()
    server.on_accept = lambda received: disconnect("pid = %s", own)
    drain = Drain()
    with pytest.raises(AWAY):
        drain.send_due()
    connection.close()
    assert states() == {"bob@example.com": OutboxState.WAITING}
    make_due()
    assert drain.send_due() == 0
    assert states() == {"bob@example.com": OutboxState.SENT}
    assert recipients(server) == ["bob@example.com"]


def test_two_senders_at_once_send_each_message_once(server: MailServer) -> None:
    put(*(f"{number}@example.com" for number in range(90)))
    with operator(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE common_outboxmessage")  # until both are there
        senders = [start_python(SEND_DUE, EMAIL_URL=server.url) for _ in range(2)]
        for sender in senders:
            assert sender.stdout.readline() == "ready\n"
    counts = [int(sender.communicate(timeout=60)[0]) for sender in senders]
    assert sum(counts) == 90
    assert all(counts), "one of the two sent nothing: that was no race"
    assert Counter(recipients(server)) == Counter(f"{number}@example.com" for number in range(90))


def test_a_slow_sender_does_not_undo_what_another_has_done() -> None:
    put("bob@example.com")
    make_due()
    with operator():
        slow = OutboxMessage.objects.take(OutboxKind.MAIL)
    make_due()  # it took longer than VISIBILITY
    with operator():
        other = OutboxMessage.objects.take(OutboxKind.MAIL)
        assert slow and other and (slow.pk, slow.attempts, other.attempts) == (other.pk, 1, 2)
        assert OutboxMessage.objects.in_hand(slow).fail("550 too late") == 0
        assert OutboxMessage.objects.in_hand(slow).postpone(timedelta(seconds=1), "451 too late") == 0
        assert OutboxMessage.objects.filter(pk=other.pk).sent() == 1
        assert OutboxMessage.objects.in_hand(other).fail("550 too late") == 0
    assert states() == {"bob@example.com": OutboxState.SENT}


def test_a_message_is_given_up_after_three_days(server: MailServer, caplog: pytest.LogCaptureFixture) -> None:
    server.answer = Answer.DEFER
    with operator():
        for hours in (71, 73):
            OutboxMessage.objects.create(
                event="hello",
                recipient=f"{hours}@example.com",
                subject="",
                body="",
                created_at=Now() - timedelta(hours=hours),
            )
    assert Drain().send_due() == 0
    assert states() == {"71@example.com": OutboxState.POSTPONED, "73@example.com": OutboxState.FAILED}
    put("bob@example.com")
    with operator():
        OutboxMessage.objects.update(failed_at=None, due_at=Now())
    with server.down():
        assert Drain().send_due() == 0
    assert states() == {
        "71@example.com": OutboxState.POSTPONED,
        "73@example.com": OutboxState.FAILED,
        "bob@example.com": OutboxState.POSTPONED,
    }
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2


def test_delays_double_up_to_five_minutes() -> None:
    for failures, longest_s in [(1, 2), (2, 4), (7, 128), (8, 256), (9, 300), (10_000, 300)]:
        delays = [delay_s(failures) for _ in range(200)]
        assert longest_s / 2 <= min(delays) < max(delays) <= longest_s


def test_the_thread_outlasts_the_server_and_the_database_and_ends_with_its_block(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.drain.LOOK_EVERY_S", 0.05)
    with draining():
        put("alice@example.com")
        eventually(lambda: states()["alice@example.com"] == OutboxState.SENT)
        with server.down():
            put("bob@example.com")
            eventually(lambda: states()["bob@example.com"] == OutboxState.POSTPONED)
        eventually(lambda: states()["bob@example.com"] == OutboxState.SENT)
        disconnect("datname = current_database() AND pid NOT IN (%s, pg_backend_pid())", own_backend())
        put("charlie@example.com")
        eventually(lambda: states()["charlie@example.com"] == OutboxState.SENT)
    assert [thread.name for thread in threading.enumerate() if thread.name == "outbox"] == []
    assert recipients(server) == ["alice@example.com", "bob@example.com", "charlie@example.com"]


def test_leaving_the_block_waits_for_the_mail_that_is_being_sent(server: MailServer) -> None:
    accepted = threading.Event()

    def take_your_time(received: Received) -> None:
        accepted.set()
        time.sleep(0.5)

    server.on_accept = take_your_time
    put("alice@example.com", "bob@example.com")
    with draining():
        assert accepted.wait(20)
    assert Counter(states().values()) == {OutboxState.SENT: 1, OutboxState.WAITING: 1}
    assert len(server.received) == 1


def test_the_keeper_sends_once_the_server_is_back_and_ends_in_order(server: MailServer) -> None:
    with server.down():
        put("alice@example.com", "bob@example.com")
        keeper = start_manage("keeper", EMAIL_URL=server.url)
        eventually(lambda: set(states().values()) == {OutboxState.POSTPONED}, timeout_s=60)
    eventually(lambda: set(states().values()) == {OutboxState.SENT}, timeout_s=60)
    keeper.terminate()
    keeper.communicate(timeout=30)
    assert keeper.returncode == 0
    assert sorted(recipients(server)) == ["alice@example.com", "bob@example.com"]
