"""A real SMTP server for tests, which misbehaves in the ways that mail servers do, when asked to."""

from __future__ import annotations

import asyncio
import email
import email.policy
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd's own: each command


class Answer(Enum):
    ACCEPT = auto()
    REFUSE = auto()
    """550 to the recipient: for ever."""
    DEFER = auto()
    """451 to the recipient: not now."""
    CLOSE = auto()
    """421 to the recipient, and the end of the connection: not now, nor any other."""
    BABBLE = auto()
    """No status code to the recipient."""
    HANG = auto()
    """None to the mail, for as long as the client waits."""
    DRIP = auto()
    """A byte to the mail now and then, without end."""
    DROP = auto()
    """The connection breaks where the answer to the mail should come; the mail is not accepted."""
    LOSE = auto()
    """The mail is accepted, and the connection breaks before the answer."""


class Greeting(Enum):
    AT_ONCE = auto()
    NEVER = auto()
    DRIP = auto()
    """A byte now and then, without end."""


@dataclass(frozen=True)
class Received:
    """A mail that the server has taken into its hands."""

    message_id: str
    recipient: str
    subject: str
    body: str
    headers: dict[str, str]


@dataclass
class MailServer:
    """Listens at `host` and `port`, which stay the same while it is down. The switches may be set at any time."""

    host: str = "127.0.0.1"
    port: int = 0
    received: list[Received] = field(default_factory=list)
    answer: Answer = Answer.ACCEPT
    answers: dict[str, Answer] = field(default_factory=dict)  # to some recipients, others than `answer`
    greeting: Greeting = Greeting.AT_ONCE
    answer_to_sender: str = "250 OK"
    size_limit_bytes: int = 1 << 25
    on_accept: Callable[[Received], None] = lambda received: None  # before the answer
    connections: int = 0

    @property
    def url(self) -> str:
        """For EMAIL_URL."""
        return f"smtp://{self.host}:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        """Django's, for a test's own process, where pytest-django has put a back end that only collects."""
        return {"EMAIL_BACKEND": "common.smtp.EmailBackend", "EMAIL_HOST": self.host, "EMAIL_PORT": self.port}

    @contextmanager
    def down(self) -> Iterator[None]:
        """Nobody listens at its port during the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mail-server")
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        """Break all connections, and listen no more."""
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> int:
        self._protocols: list[SMTP | _Mute] = []
        self._server = await self._loop.create_server(self._connected, self.host, self.port)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def _connected(self) -> SMTP | _Mute:
        self.connections += 1
        protocol: SMTP | _Mute = _Mute(drips=self.greeting is Greeting.DRIP)
        if self.greeting is Greeting.AT_ONCE:
            limit = self.size_limit_bytes
            protocol = SMTP(_Handler(self), data_size_limit=limit, hostname="mail.test", loop=self._loop)
        self._protocols.append(protocol)
        return protocol

    async def _leave(self) -> None:
        self._server.close()
        for protocol in self._protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class _Mute(asyncio.Protocol):
    """Takes a connection, and greets nobody."""

    transport: asyncio.Transport | None = None

    def __init__(self, *, drips: bool) -> None:
        self._drips = drips

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._drips:
            self._task = asyncio.ensure_future(_drip(transport))


async def _drip(transport: asyncio.WriteTransport) -> None:
    while not transport.is_closing():
        transport.write(b"2")
        await asyncio.sleep(0.05)


class _Handler:
    """What aiosmtpd calls; the names are its own."""

    def __init__(self, owner: MailServer) -> None:
        self._owner = owner

    def _answer(self, recipient: str) -> Answer:
        return self._owner.answers.get(recipient, self._owner.answer)

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._owner.answer_to_sender.startswith("250"):
            envelope.mail_from = address
        return self._owner.answer_to_sender

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        match self._answer(address):
            case Answer.REFUSE:
                return "550 5.1.1 No such mailbox"
            case Answer.DEFER:
                return "451 4.3.0 Try again later"
            case Answer.CLOSE:
                return "421 4.3.2 Shutting down"
            case Answer.BABBLE:
                return "Well then"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        (recipient,) = envelope.rcpt_tos
        answer = self._answer(recipient)
        if answer is Answer.HANG:
            await asyncio.Event().wait()
        if answer is Answer.DRIP:
            await _drip(server.transport)
        if answer is Answer.DROP:
            server.transport.abort()
            return ""
        assert isinstance(envelope.content, bytes)
        parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
        received = Received(
            message_id=str(parsed["Message-ID"]),
            recipient=recipient,
            subject=str(parsed["Subject"]),
            body=parsed.get_content().replace("\r\n", "\n"),  # type: ignore[attr-defined]
            headers={name: str(value) for name, value in parsed.items()},
        )
        self._owner.received.append(received)
        self._owner.on_accept(received)
        if answer is Answer.LOSE:
            server.transport.abort()
        return "250 OK"


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """A server that accepts everything, on a free port, until the end of the block."""
    server = MailServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
