"""Faults, each proven to have happened before the call returns; NotProven is raised where one could not be brought about.

    injector = Injector(platform)                          # an Installation
    injector.kill("training busy worker")                  # roles: process_table.py
    stopped = injector.pause("web"); ...; injector.resume(stopped)
    with injector.redis_away(): ...                        # also redis_paused(), postgres_away(), postgres_paused()
    injector.restart_redis(); injector.flush_redis(); injector.restart_postgres(); injector.kill_postgres()
    with Tmpfs(...) as disk, injector.full(disk): ...  # disk.py; tear() is there, too
    with injector.clock_off(clock, 300): ...               # clock.py
    with injector.mail_answering(server, Answer.DEFER): ...    # tests/mail.py; also mail_down(server)

Nothing here waits for the platform to recover: that is what the tests are about.
"""

from __future__ import annotations

import os
import signal
import smtplib
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from email.message import EmailMessage
from typing import Any
from uuid import uuid4

import psycopg2
import redis

from tests.faults.clock import Clock
from tests.faults.disk import Tmpfs
from tests.faults.installation import Installation
from tests.faults.process_table import Running
from tests.faults.proof import NotProven, prove
from tests.mail import Answer, MailServer

GONE_WITHIN_S = 10.0
ORDERLY_S = 45.0  # a worker has 30 s to stop its trainer
PROBE_S = 1.0


class Injector:
    def __init__(self, platform: Installation, look_for_s: float = 30.0) -> None:
        """`look_for_s`: how long a process of the wanted role is waited for."""
        self.platform = platform
        self._servers = platform.servers
        self._look_for_s = look_for_s

    # ------------------------------------------------------------------------------------------ processes

    def kill(self, role: str | Running) -> Running:
        """kill -9; returns who has gone."""
        process = self._send(role, signal.SIGKILL)
        prove(f"{process.role} {process.pid} is gone", lambda: not process.is_there, GONE_WITHIN_S)
        return process

    def kill_group(self, role: str | Running) -> Running:
        """kill -9 of a process and of all in its process group."""
        process = self.found(role)
        members = [each for each in self.platform.processes() if each.group == process.group]
        os.killpg(process.group, signal.SIGKILL)
        for each in members:
            prove(f"{each.role} {each.pid} is gone", lambda each=each: not each.is_there, GONE_WITHIN_S)
        return process

    def kill_cluster(self, queue: str) -> list[Running]:
        """kill -9 of a whole cluster at once: its parent, all its parts, and the guard above them."""
        members = [each for each in self.platform.processes() if each.role.split(" ")[0] == queue]
        members += self.platform.all(f"guard {queue}")
        if not members:
            raise NotProven(f"there is no cluster {queue}")
        for each in members:
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        for each in members:
            prove(f"{each.role} {each.pid} is gone", lambda each=each: not each.is_there, GONE_WITHIN_S)
        return members

    def terminate(self, role: str | Running, within_s: float = ORDERLY_S) -> Running:
        """SIGTERM, which is obeyed: returns once the process has gone."""
        process = self.ask_to_end(role)
        prove(f"{process.role} {process.pid} has heard SIGTERM and gone", lambda: not process.is_there, within_s)
        return process

    def pause(self, role: str | Running) -> Running:
        """SIGSTOP; resume() undoes it."""
        process = self._send(role, signal.SIGSTOP)
        prove(f"{process.role} {process.pid} is stopped", lambda: process.is_stopped)
        return process

    def resume(self, process: Running) -> None:
        """SIGCONT; a process that was killed meanwhile is gone, and stays so."""
        with suppress(ProcessLookupError):
            if process.is_there:
                os.kill(process.pid, signal.SIGCONT)
        prove(f"{process.role} {process.pid} is not stopped", lambda: not process.is_stopped)

    def ask_to_end(self, role: str | Running) -> Running:
        """SIGTERM, and no waiting: whoever looks later proves that the process has gone."""
        return self._send(role, signal.SIGTERM)

    def _send(self, role: str | Running, number: signal.Signals) -> Running:
        process = self.found(role)
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            raise NotProven(f"{process.role} {process.pid} had gone before {number.name} came") from None
        return process

    def found(self, role: str | Running) -> Running:
        """The process of a role, waited for."""
        if isinstance(role, Running):
            if not role.is_there:
                raise NotProven(f"{role.role} {role.pid} has gone")
            return role
        try:
            return self.platform.one(role, self._look_for_s)
        except AssertionError as error:
            raise NotProven(str(error)) from None

    # ------------------------------------------------------------------------------------------ Redis

    def flush_redis(self) -> None:
        """FLUSHALL; proven by a key that was there and is not any more."""
        mark = f"faults:{uuid4().hex}"
        with self._servers.redis_client() as client:
            client.set(mark, 1)
            client.flushall()
            if client.exists(mark):
                raise NotProven("Redis was not flushed")

    def restart_redis(self) -> None:
        """kill -9 and start: all that was in it is lost."""
        with self.redis_away():
            pass

    @contextmanager
    def redis_away(self) -> Iterator[None]:
        """Redis is killed, and comes back, empty, at the end of the block."""
        self._servers.redis.kill()
        prove("Redis refuses connections", lambda: self._redis_says() == "refused")
        try:
            yield
        finally:
            self._servers.redis.start()
            prove("Redis answers again", lambda: self._redis_says() == "PONG", 15.0)

    @contextmanager
    def redis_paused(self) -> Iterator[None]:
        """Redis takes connections and says nothing."""
        self._servers.redis.pause()
        prove("Redis is silent", lambda: self._redis_says() == "silent")
        try:
            yield
        finally:
            self._servers.redis.resume()
            prove("Redis answers again", lambda: self._redis_says() == "PONG")

    def _redis_says(self) -> str:
        client = redis.Redis.from_url(
            self._servers.redis_url, socket_timeout=PROBE_S, socket_connect_timeout=PROBE_S, retry=None
        )
        try:
            with client:
                return "PONG" if client.ping() else "?"
        except redis.TimeoutError:
            return "silent"
        except redis.ConnectionError:
            return "refused"

    # ------------------------------------------------------------------------------------------ PostgreSQL

    def restart_postgres(self) -> None:
        """A fast shutdown, which ends all sessions, and a start."""
        with self.postgres_away():
            pass

    def kill_postgres(self) -> None:
        """kill -9 of all of PostgreSQL, and a start, which recovers from its log."""
        with self.postgres_away(kill=True):
            pass

    @contextmanager
    def postgres_away(self, *, kill: bool = False) -> Iterator[None]:
        """PostgreSQL is shut down (fast), or killed, and comes back at the end of the block."""
        self._servers.postgres.kill() if kill else self._servers.postgres.stop()
        prove("PostgreSQL refuses connections", lambda: self._postgres_says() == "refused")
        try:
            yield
        finally:
            self._servers.postgres.start()
            prove("PostgreSQL answers again", lambda: self._postgres_says() == "1", 30.0)

    @contextmanager
    def postgres_paused(self) -> Iterator[None]:
        """PostgreSQL's processes all stop: connections neither answer nor end."""
        self._servers.postgres.pause()
        prove("PostgreSQL is silent", lambda: self._postgres_says() == "silent")
        try:
            yield
        finally:
            self._servers.postgres.resume()
            prove("PostgreSQL answers again", lambda: self._postgres_says() == "1", 15.0)

    def _postgres_says(self) -> str:
        """A stopped one lets a socket be opened, and sends nothing."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PROBE_S)
            try:
                probe.connect(str(self._servers.sockets / ".s.PGSQL.5432"))
                probe.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # SSLRequest; the answer is one byte
                if not probe.recv(1):
                    return "refused"
            except TimeoutError:
                return "silent"
            except OSError:
                return "refused"
        try:
            with closing(self._servers.connect()) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                return str(cursor.fetchone()[0])
        except psycopg2.OperationalError:
            return "refused"

    # ------------------------------------------------------------------------------------------ the rest

    @contextmanager
    def full(self, disk: Tmpfs) -> Iterator[None]:
        """The disk has no byte left during the block; what the platform frees meanwhile it may use."""
        disk.fill()
        try:
            yield
        finally:
            disk.empty()

    @contextmanager
    def clock_off(self, clock: Clock, seconds: float) -> Iterator[None]:
        """The clock of all processes that were started with clock.environment is off during the block."""
        clock.move(seconds)
        try:
            yield
        finally:
            clock.move(0)

    @contextmanager
    def mail_answering(self, server: MailServer, answer: Answer) -> Iterator[None]:
        """The mail server answers so during the block; proven by a mail of our own."""
        server.answer = answer
        said = _mail_says(server)
        if said != _EXPECTED.get(answer):
            raise NotProven(f"the mail server says {said!r} when told to {answer.name}")
        try:
            yield
        finally:
            server.answer = Answer.ACCEPT

    @contextmanager
    def mail_down(self, server: MailServer) -> Iterator[None]:
        """Nobody listens at the mail server's port during the block."""
        with server.down():
            said = _mail_says(server)
            if said != "refused":
                raise NotProven(f"the mail server says {said!r} while it is down")
            yield


PROBE_SENDER = "probe@faults.test"
_EXPECTED = {Answer.DEFER: 451, Answer.REFUSE: 550, Answer.CLOSE: 421, Answer.LOSE: "lost", Answer.HANG: "silent"}


def _mail_says(server: MailServer) -> Any:
    message = EmailMessage()
    message["From"], message["To"], message["Message-ID"] = PROBE_SENDER, PROBE_SENDER, "<probe@faults.test>"
    try:
        with smtplib.SMTP(server.host, server.port, timeout=PROBE_S) as client:
            client.send_message(message)
            return 250
    except smtplib.SMTPRecipientsRefused as error:
        return next(iter(error.recipients.values()))[0]
    except smtplib.SMTPServerDisconnected as error:
        return "silent" if isinstance(error.__cause__ or error.__context__, TimeoutError) else "lost"
    except smtplib.SMTPResponseException as error:
        return error.smtp_code
    except TimeoutError:
        return "silent"
    except OSError:
        return "refused"
