"""Where a server of the platform listens, and what to say where it cannot."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass


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

    def check_free(self, variable: str = "PORT") -> None:
        """Raise CannotStart if nobody could listen here now."""
        family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(address)
                listener.listen(1)
            except PermissionError:
                raise CannotStart(
                    f"Port {self.port} is for root only: choose another, {variable}=8000 make up"
                ) from None
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    other = self.port + 1 if self.port < 65535 else 8000
                    raise CannotStart(
                        f"Port {self.port} at {self.host} is in use: stop what listens there "
                        f"or choose another with {variable}={other} make up"
                    ) from None
                raise CannotStart(f"Cannot listen at {self.host}: {error.strerror}. HOST names the address.") from None
