"""What sends the outbox's messages: at least once, a repeat only with the same Message-ID.

A message is sent twice where the mail server's answer was lost on the way, or was not recorded within the two minutes for
which its row is hidden. That is so where this process died or stood still before its commit, or where the database was
away for as long and another keeper's drain found it back first; a drain that is alone records what it sent before it sends.
"""

from __future__ import annotations

import logging
import random
import re
import smtplib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.utils import format_datetime, parseaddr
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.message import sanitize_address
from django.db import close_old_connections, connection

from common.models import ERROR_LIMIT, OutboxKind, OutboxMessage
from common.outages import AWAY, Patience, first_line
from common.tenancy import operator
from common.text import one_line

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
LONGEST_DELAY_S = 300.0
MAX_PER_CONNECTION = 100  # mail servers close a connection on which there comes no end
LAST_MAIL_S = 4.0


class ServerAway(Exception):
    """The mail server cannot be reached, or takes nothing: that says nothing about the mail in hand."""


class BrokenOff(Exception):
    """The conversation ended in the middle of a mail: the mail may be the reason, or the server."""


@contextmanager
def draining() -> Iterator[None]:
    """Drain from a thread of its own, over a database connection of its own, for as long as the block lasts.

    Leaving waits up to 4 seconds for the mail that is being sent: torn from its server, it would be sent twice.
    """
    stop = threading.Event()
    thread = threading.Thread(target=Drain(stop).run, name="outbox", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LAST_MAIL_S)


class Drain:
    """Sends what is due. Two at once do not disturb each other, and no transaction is open while a server is spoken to."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self._failures = 0  # of the mail server, in a row
        self._broken_off: set[UUID] = set()  # in a row
        self._unrecorded: set[UUID] = set()  # sent, while the database was away

    def run(self) -> None:
        """Send until told to stop. Neither the mail server nor the database being away ends it, nor a bug with one mail."""
        patience = Patience()
        while not self._stop.is_set():
            pause_s = LOOK_EVERY_S
            try:
                close_old_connections()
                full = self.send_due() == MAX_PER_CONNECTION
                patience.over()
                pause_s = 0.0 if full else self._pause_s()
            except AWAY as error:
                patience.note(error)
            except Exception:
                logger.exception("The outbox could not be drained.")
                self._failures += 1
                pause_s = self._pause_s()
            self._stop.wait(pause_s)
        connection.close()

    def send_due(self) -> int:
        """Send what is due, at most 100 messages, and return how many the mail server took.

        All go over one connection, unless it breaks. A server that is away costs one connection, and no message an attempt.
        Raises one of AWAY where the database is; what was sent until then is remembered, and recorded by the next call
        before anything else.
        """
        self._record()
        sent = 0
        try:
            while self._goes_on(sent) and self._is_any_due():
                with _connected() as server, suppress(BrokenOff):
                    while self._goes_on(sent) and (message := self._take()):
                        sent += self._send(server, message)
        except ServerAway as away:
            self._note_away(str(away))
        return sent

    def _goes_on(self, sent: int) -> bool:
        return sent < MAX_PER_CONNECTION and not self._stop.is_set()

    def _is_any_due(self) -> bool:
        with operator():
            return OutboxMessage.objects.due().exists()

    def _take(self) -> OutboxMessage | None:
        with operator():
            return OutboxMessage.objects.take(OutboxKind.MAIL)

    def _send(self, server: BaseEmailBackend, message: OutboxMessage) -> bool:
        """Whether the server took it. Raises ServerAway where it would take no other, and BrokenOff where it might."""
        try:
            mail = _composed(message)
        except Exception as error:
            self._fail(message, one_line(f"It cannot be sent as it is: {first_line(error)}", ERROR_LIMIT))
            return False
        is_sent = self._hand_over(server, message, mail)
        self._failures = 0
        self._broken_off.clear()
        return is_sent

    def _hand_over(self, server: BaseEmailBackend, message: OutboxMessage, mail: EmailMessage) -> bool:
        try:
            server.send_messages([mail])
        except smtplib.SMTPSenderRefused as refusal:
            self._refused_with_sender(message, refusal.smtp_code, refusal.smtp_error)
        except smtplib.SMTPRecipientsRefused as refusal:
            code, answer = next(iter(refusal.recipients.values()))
            self._refused(message, code, answer)
        except smtplib.SMTPDataError as refusal:
            self._refused(message, refusal.smtp_code, refusal.smtp_error)
        except Exception as error:  # smtplib's own, time-outs, and what smtplib raises at answers that make no sense
            self._break_off(message, _reason(error))
        else:
            self._unrecorded.add(message.pk)
            self._record()
            return True
        return False

    def _refused_with_sender(self, message: OutboxMessage, code: int, answer: bytes | str) -> None:
        """The answer to MAIL FROM, which tells the server nothing of the mail but its size."""
        if _is_too_large(code, answer):
            self._fail(message, _answer(code, answer))
        elif code < 500:
            self._break_off(message, _answer(code, answer))
        else:
            reason = one_line(
                f"The sender {settings.DEFAULT_FROM_EMAIL} is refused: {_answer(code, answer)}", ERROR_LIMIT
            )
            self._postpone(message, reason)
            raise ServerAway(reason)

    def _refused(self, message: OutboxMessage, code: int, answer: bytes | str) -> None:
        if code >= 500:
            self._fail(message, _answer(code, answer))
        elif code < 400 or code == 421:  # it makes no sense, or closes the connection
            self._break_off(message, _answer(code, answer))
        else:
            self._postpone(message, _answer(code, answer))

    def _break_off(self, message: OutboxMessage, reason: str) -> None:
        """Leave the conversation, and the server alone if different mails end so in a row: two, and after each pause twice as many.

        So a few bad mails hold up the others for the first short pauses and no longer.
        """
        self._postpone(message, reason)
        self._broken_off.add(message.pk)
        if len(self._broken_off) >= min(2 ** (self._failures + 1), MAX_PER_CONNECTION):
            self._broken_off.clear()
            raise ServerAway(reason)
        raise BrokenOff

    def _record(self) -> None:
        if self._unrecorded:
            with operator():
                OutboxMessage.objects.filter(pk__in=self._unrecorded).sent()
            self._unrecorded.clear()

    def _postpone(self, message: OutboxMessage, reason: str) -> None:
        with operator():
            in_hand = OutboxMessage.objects.in_hand(message)
            given_up = in_hand.give_up(reason)
            in_hand.postpone(timedelta(seconds=delay_s(message.attempts)), reason)
        if given_up:
            logger.error("Mail %s (%s) is too old to be tried again: %s", message.pk, message.event, reason)

    def _fail(self, message: OutboxMessage, reason: str) -> None:
        with operator():
            OutboxMessage.objects.in_hand(message).fail(reason)
        logger.error("Mail %s (%s) failed: %s", message.pk, message.event, reason)

    def _note_away(self, reason: str) -> None:
        """Leave all as they are until the server is asked again, but say why; give up those that are too old."""
        self._failures += 1
        with operator():
            due = OutboxMessage.objects.due()
            given_up = due.give_up(reason)
            due.exclude(last_error=reason).update(last_error=reason)
        if given_up:
            logger.error("%d mails are too old to be tried again.", given_up)
        logger.warning("The mail server takes nothing, and is asked again later: %s", reason)

    def _pause_s(self) -> float:
        return delay_s(self._failures) if self._failures else LOOK_EVERY_S


def delay_s(failures: int) -> float:
    """Between a half and all of 2, 4, 8 .. 300 seconds: an hour's outage is followed by a drain within five minutes."""
    return min(2.0 ** min(failures, 16), LONGEST_DELAY_S) * random.uniform(0.5, 1.0)  # noqa: S311


@contextmanager
def _connected() -> Iterator[BaseEmailBackend]:
    server = get_connection()
    try:
        try:
            server.open()
        except (OSError, ValueError) as error:  # ValueError: of a host name, or of a challenge
            raise ServerAway(_reason(error)) from error
        yield server
    finally:
        with suppress(OSError):
            server.close()


def _composed(message: OutboxMessage) -> EmailMessage:
    """A mail that can be written down. Raises whatever Django and Python raise at odd addresses: not ValueError alone."""
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
    headers = {
        "Message-ID": f"<{message.pk}@{domain}>",
        "Date": format_datetime(message.created_at),
        "Auto-Submitted": "auto-generated",  # keeps out-of-office replies away
    }
    mail = EmailMessage(message.subject, message.body, to=[message.recipient], headers=headers)
    sanitize_address(message.recipient, settings.DEFAULT_CHARSET)
    mail.message().as_bytes()
    return mail


def _is_too_large(code: int, answer: bytes | str) -> bool:
    """By the enhanced status code (RFC 3463) where there is one; 552 alone is RFC 1870's."""
    status = re.match(r"5\.\d{1,3}\.\d{1,3}\b", _text(answer))
    return status[0] in {"5.2.3", "5.3.4"} if status else code == 552


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return _answer(error.smtp_code, error.smtp_error)
    return one_line(first_line(error), ERROR_LIMIT)


def _answer(code: int, answer: bytes | str) -> str:
    return one_line(f"{code} {_text(answer)}", ERROR_LIMIT)


def _text(answer: bytes | str) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer
