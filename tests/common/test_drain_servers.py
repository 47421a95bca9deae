"""Mail servers that are down, refuse, break off, or fall silent, and mails that are the reason: the others get through."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from common.drain import LONGEST_DELAY_S, LOOK_EVERY_S, Drain
from common.models import OutboxMessage, OutboxState
from common.tenancy import operator
from tests.mail import Answer, Greeting, MailServer
from tests.outbox import get, in_s, make_due, outbox_server, put, recipients, states

pytestmark = pytest.mark.django_db(transaction=True)


class Clock(threading.Event):
    """For a drain to wait on: time passes at once, by the database's clock too."""

    def __init__(self, pass_on: Callable[[float], None]) -> None:
        """`pass_on(before_s)` is called each time that time has passed."""
        super().__init__()
        self.now_s = 0.0
        self._pass_on = pass_on

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        before_s, self.now_s = self.now_s, self.now_s + timeout
        passed = timedelta(seconds=timeout)
        with operator():
            OutboxMessage.objects.update(due_at=F("due_at") - passed, created_at=F("created_at") - passed)
        self._pass_on(before_s)
        return self.is_set()


@pytest.fixture
def server(settings: Any) -> Iterator[MailServer]:
    with outbox_server(settings) as server:
        yield server


def test_while_the_server_is_down_one_connection_is_tried_and_no_message_loses_an_attempt(
    server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    messages = put(*(f"{number}@example.com" for number in range(30)))
    drain = Drain()
    with server.down():
        assert [drain.send_due() for _ in range(3)] == [0, 0, 0]
        waiting = [get(message) for message in messages]
    assert {(each.state, each.attempts) for each in waiting} == {(OutboxState.POSTPONED, 0)}
    assert all("refused" in each.last_error for each in waiting)
    assert len([record for record in caplog.records if record.name == "common.drain"]) == 3
    assert drain.send_due() == 30
    assert sorted(recipients(server)) == sorted(each.recipient for each in messages)
    assert set(states().values()) == {OutboxState.SENT}


def test_a_refused_recipient_fails_at_once_and_the_others_get_theirs(
    server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = {"gone@example.com": Answer.REFUSE, "busy@example.com": Answer.DEFER}
    gone, busy, _ = put("gone@example.com", "busy@example.com", "bob@example.com")
    drain = Drain()
    assert drain.send_due() == 1
    assert states() == {
        "gone@example.com": OutboxState.FAILED,
        "busy@example.com": OutboxState.POSTPONED,
        "bob@example.com": OutboxState.SENT,
    }
    assert get(gone).last_error == "550 5.1.1 No such mailbox"
    assert get(busy).last_error == "451 4.3.0 Try again later"
    assert 0 < in_s(get(busy)) <= 2
    server.answers = {}
    make_due()
    assert [drain.send_due(), drain.send_due()] == [1, 0]
    assert recipients(server) == ["bob@example.com", "busy@example.com"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert line == f"Mail {gone.pk} (hello) failed: 550 5.1.1 No such mailbox"


@pytest.mark.parametrize(
    "recipient", ["bob@example.com\nBcc: eve@example.com", "@", "", "<>", "a@[1.2.3.4", "(" * 254, "a@" + "é" * 200]
)
def test_what_is_no_address_fails_at_once_and_holds_nobody_up(
    server: MailServer, recipient: str, caplog: pytest.LogCaptureFixture
) -> None:
    with operator():
        for number in range(31):
            OutboxMessage.objects.create(event=f"hello/{number}", recipient=recipient, subject="Hello", body="You.\n")
    put("bob@example.com")
    assert Drain().send_due() == 1
    assert recipients(server) == ["bob@example.com"]
    with operator():
        odd = OutboxMessage.objects.in_state(OutboxState.FAILED)
        assert [each.last_error.startswith("It cannot be sent as it is: ") for each in odd] == [True] * 31
    lines = [record for record in caplog.records if record.name == "common.drain"]
    assert [(line.levelno, line.exc_info) for line in lines] == [(logging.ERROR, None)] * 31


BREAKING = [Answer.CLOSE, Answer.BABBLE, Answer.DROP, Answer.LOSE]


@pytest.mark.parametrize("answer", BREAKING)
def test_a_mail_that_breaks_the_connection_is_postponed_and_the_others_go_over_a_new_one(
    server: MailServer, answer: Answer
) -> None:
    server.answers = {"odd@example.com": answer}
    _, odd, _ = put("alice@example.com", "odd@example.com", "bob@example.com")
    assert Drain().send_due() == 2
    assert [each for each in recipients(server) if each != "odd@example.com"] == [
        "alice@example.com",
        "bob@example.com",
    ]
    assert (get(odd).state, get(odd).attempts) == (OutboxState.POSTPONED, 1)
    assert 0 < in_s(get(odd)) <= 2
    assert server.connections == 2


@pytest.mark.parametrize("answer", BREAKING)
def test_a_server_that_breaks_off_two_mails_in_a_row_is_left_alone(server: MailServer, answer: Answer) -> None:
    server.answer = answer
    messages = put("alice@example.com", "bob@example.com", "charlie@example.com")
    drain = Drain()
    assert drain.send_due() == 0
    assert [get(message).attempts for message in messages] == [1, 1, 0]
    assert len({get(message).last_error for message in messages}) == 1, "each is told why nothing is sent"
    assert server.connections == 2
    server.answer = Answer.ACCEPT
    make_due()
    assert drain.send_due() == 3


def test_many_mails_that_break_the_connection_hold_the_others_up_for_half_a_minute_at_most(server: MailServer) -> None:
    odd = [f"{number}@odd.example" for number in range(31)]
    server.answers = dict.fromkeys(odd, Answer.DROP)
    put(*odd, "bob@example.com")
    clock = Clock(lambda _: clock.set() if server.received else None)
    Drain(clock).run()
    assert recipients(server) == ["bob@example.com"]
    assert clock.now_s <= 2 + 4 + 8 + 16 + LOOK_EVERY_S
    assert Counter(states().values()) == {OutboxState.SENT: 1, OutboxState.POSTPONED: 31}


def test_a_mail_that_breaks_the_connection_again_and_again_is_no_outage(
    server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = Answer.DROP
    (odd,) = put("odd@example.com")
    drain = Drain()
    for _ in range(3):
        assert drain.send_due() == 0
        make_due()
    assert get(odd).attempts == server.connections == 3
    assert not caplog.records


@pytest.mark.parametrize(
    "answer",
    [
        "553 5.7.1 Sender not allowed",
        "530 5.7.0 Authentication required",
        "552 5.2.2 Quota exceeded",
        "550 Who are you?",
    ],
)
def test_a_server_that_refuses_the_sender_has_refused_no_mail(
    server: MailServer, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer_to_sender = answer
    messages = put("alice@example.com", "bob@example.com")
    assert Drain().send_due() == 0
    assert set(states().values()) == {OutboxState.POSTPONED}
    reason = f"The sender Platform <platform@example.com> is refused: {answer}"
    assert {get(message).last_error for message in messages} == {reason}
    assert [get(message).attempts for message in messages] == [1, 0]
    assert server.connections == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"The mail server takes nothing, and is asked again later: {reason}"


def test_a_sender_put_off_for_two_mails_in_a_row_is_put_off_for_all(server: MailServer) -> None:
    server.answer_to_sender = "451 4.7.1 Greylisted"
    messages = put("alice@example.com", "bob@example.com", "charlie@example.com")
    assert Drain().send_due() == 0
    assert [get(message).attempts for message in messages] == [1, 1, 0]
    assert {get(message).last_error for message in messages} == {"451 4.7.1 Greylisted"}


def test_a_mail_that_is_too_large_fails_at_once_and_the_others_get_theirs(server: MailServer) -> None:
    server.size_limit_bytes = 2000
    with operator():
        large = OutboxMessage.objects.create(
            event="hello", recipient="alice@example.com", subject="Hello", body="You.\n" * 1000
        )
    put("bob@example.com")
    assert Drain().send_due() == 1
    assert states() == {"alice@example.com": OutboxState.FAILED, "bob@example.com": OutboxState.SENT}
    assert get(large).last_error == "552 Error: message size exceeds fixed maximum message size"
    assert server.connections == 1


@pytest.mark.parametrize("answer", ["552 5.3.4 Message size exceeds fixed limit", "554 5.2.3 Too long", "552 Too big"])
def test_servers_have_several_words_for_too_large(server: MailServer, answer: str) -> None:
    server.answer_to_sender = answer
    (message,) = put("alice@example.com")
    assert Drain().send_due() == 0
    assert (get(message).state, get(message).last_error) == (OutboxState.FAILED, answer)


@pytest.mark.parametrize("greeting", [Greeting.NEVER, Greeting.DRIP])
def test_a_server_that_does_not_greet_in_time_is_away(server: MailServer, settings: Any, greeting: Greeting) -> None:
    settings.EMAIL_TIMEOUT = 0.3
    server.greeting = greeting
    messages = put("alice@example.com", "bob@example.com")
    begin = time.monotonic()
    assert Drain().send_due() == 0
    assert 0.3 <= time.monotonic() - begin < 3
    assert [(get(message).state, get(message).attempts) for message in messages] == [(OutboxState.POSTPONED, 0)] * 2
    assert server.connections == 1
    server.greeting = Greeting.AT_ONCE
    assert Drain().send_due() == 2


@pytest.mark.parametrize("answer", [Answer.HANG, Answer.DRIP])
def test_a_server_that_does_not_answer_in_time_holds_up_two_mails_for_the_timeout(
    server: MailServer, settings: Any, answer: Answer
) -> None:
    settings.EMAIL_TIMEOUT = 0.3
    server.answer = answer
    messages = put("alice@example.com", "bob@example.com", "charlie@example.com")
    begin = time.monotonic()
    assert Drain().send_due() == 0
    assert 0.6 <= time.monotonic() - begin < 5
    assert [get(message).attempts for message in messages] == [1, 1, 0]
    server.answer = Answer.ACCEPT
    make_due()
    assert Drain().send_due() == 3


@pytest.mark.parametrize(
    "answer", [None, pytest.param(Answer.DEFER, marks=pytest.mark.slow), Answer.CLOSE, Answer.DROP]
)
def test_what_an_outage_of_an_hour_has_gathered_is_sent_within_five_minutes_once_each(
    server: MailServer, answer: Answer | None
) -> None:
    """Without an answer, nobody listens."""
    gathered = [f"{number}@example.com" for number in range(12)]

    def pass_on(before_s: float) -> None:
        if before_s // 300 < clock.now_s // 300 and gathered:
            put(gathered.pop())
        if before_s < 3600 <= clock.now_s:
            server.answer = Answer.ACCEPT
            server.start() if answer is None else None
        if clock.now_s >= 3600 and set(states().values()) == {OutboxState.SENT}:
            clock.set()
        assert clock.now_s < 3600 + LONGEST_DELAY_S + 2 * LOOK_EVERY_S, states()

    clock = Clock(pass_on)
    if answer is None:
        server.stop()
    else:
        server.answer = answer
    put("alice@example.com", "bob@example.com")
    Drain(clock).run()
    assert len(states()) >= 10
    assert Counter(recipients(server)) == dict.fromkeys(states(), 1)
