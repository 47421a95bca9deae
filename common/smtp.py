"""Django's SMTP back end, held to its time-out by servers that answer a byte at a time, and introduced once it is open."""

from __future__ import annotations

import io
import smtplib
import socket
import time
from typing import Any

from django.core.mail.backends import smtp


class _Answer(io.RawIOBase):
    """What a server sends, to be read until a moment that is set for all of it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.complete_by = 0.0  # time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self.complete_by - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class _Timed(smtplib.SMTP):
    """Grants `timeout` to each answer, where smtplib grants it to each read, of which an answer may need any number."""

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            self.file = io.BufferedReader(_Answer(self.sock))  # type: ignore[arg-type]
        self.file.raw.complete_by = time.monotonic() + self.timeout
        try:
            return super().getreply()
        finally:
            if self.sock is not None:
                self.sock.settimeout(self.timeout)


class _TimedTls(_Timed, smtplib.SMTP_SSL):
    pass


class EmailBackend(smtp.EmailBackend):
    @property
    def connection_class(self) -> type[smtplib.SMTP]:  # type: ignore[override]
        return _TimedTls if self.use_ssl else _Timed

    def open(self) -> bool | None:
        """Connect, log in, and say EHLO: a server that does not get so far has said nothing about any mail."""
        opened = super().open()
        if opened:
            self.connection.ehlo_or_helo_if_needed()  # type: ignore[union-attr]
        return opened
