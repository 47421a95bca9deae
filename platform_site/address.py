"""Where a server of the platform listens, and what to say where it cannot."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

BACKLOG = 2048  # connections that wait to be accepted
NOT_HERE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # a name may stand for addresses that this machine has not all


class CannotStart(Exception):
    """What prevents a start, as one line that says what to do."""


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    @classmethod
    def from_environment(cls, host: str = "HOST", port: str = "PORT", default_port: int = 8000) -> Address:
        """Read the two variables; raises CannotStart with the name of the wrong one."""
        name, text = os.environ.get(host) or "127.0.0.1", os.environ.get(port) or str(default_port)
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
            raise CannotStart(f"{port} must be a number from 1 to 65535, not {text!r}.")
        try:
            socket.getaddrinfo(name, int(text), type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise CannotStart(f"{host} must be an address of this machine, such as 127.0.0.1, not {name!r}.") from None
        return cls(name, int(text))

    @classmethod
    def free(cls, host: str = "127.0.0.1") -> Address:
        """An address with a port that is free now."""
        with socket.create_server((host, 0)) as listener:
            return cls(host, listener.getsockname()[1])

    @property
    def url(self) -> str:
        """The URL for a client on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def listen(self) -> list[socket.socket]:
        """Sockets that listen here from now on, one for each address that the host's name stands for.

        Raises CannotStart. Who connects before anybody accepts waits.
        """
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        opened: list[socket.socket] = []
        refused: CannotStart | None = None
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            try:
                opened.append(self._listener(family, address))
            except OSError as error:
                refused = CannotStart(self._refusal(error, "PORT"))
                if error.errno not in NOT_HERE:
                    close_all(opened)
                    raise refused from None
        if not opened and refused is not None:
            raise refused
        return opened

    def check_free(self, variable: str = "PORT") -> None:
        """Raise CannotStart if nobody could listen here now."""
        family, _, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        try:
            self._listener(family, address).close()
        except OSError as error:
            raise CannotStart(self._refusal(error, variable)) from None

    def _listener(self, family: int, address: Any) -> socket.socket:
        """Raises OSError."""
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as asyncio has it
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener

    def _refusal(self, error: OSError, variable: str) -> str:
        if isinstance(error, PermissionError):
            return f"Port {self.port} is for root only: choose another, {variable}=8000 make up"
        if error.errno == errno.EADDRINUSE:
            other = self.port + 1 if self.port < 65535 else 8000
            return (
                f"Port {self.port} at {self.host} is in use: stop what listens there "
                f"or choose another with {variable}={other} make up"
            )
        return f"Cannot listen at {self.host}: {error.strerror}. HOST names the address."


def close_all(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()
