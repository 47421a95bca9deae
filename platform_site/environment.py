"""Reads the environment for settings.py, and refuses what it cannot use by the variable's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email

_env = environ.Env()

# A server that is gone without a word is found out within seconds, not when the kernel gives up after a quarter of an hour.
CONNECTION_LIMITS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",  # milliseconds
}


def text(name: str, default: str = "") -> str:
    return str(_env.str(name, default=default))


def flag(name: str, default: bool) -> bool:
    value = text(name, "true" if default else "false").strip().lower()
    if value not in {"true", "false", "1", "0", "yes", "no", "on", "off"}:
        raise _refused(name, value, "true or false")
    return value in {"true", "1", "yes", "on"}


def number(name: str, default: int, minimum: int = 0, maximum: int = 2**53) -> int:
    value = text(name, str(default))
    if not value.strip().isdecimal() or not minimum <= int(value) <= maximum:
        raise _refused(name, value, f"a whole number from {minimum} to {maximum}")
    return int(value)


def choice(name: str, default: str, choices: set[str]) -> str:
    value = text(name, default)
    if value not in choices:
        raise _refused(name, value, "one of " + ", ".join(sorted(choices)))
    return value


def names(name: str, default: list[str]) -> list[str]:
    """A comma-separated list."""
    return [item.strip() for item in text(name, ",".join(default)).split(",") if item.strip()]


def folder(name: str, default: Path) -> Path:
    return Path(text(name, str(default))).expanduser().resolve()


def package_or_folder(name: str) -> str:
    """The name of a package, or the whole path of a folder, which has a slash in it; empty where none is named."""
    value = text(name).strip()
    return str(folder(name, Path())) if "/" in value else value


def database(name: str) -> dict[str, Any]:
    """A PostgreSQL connection for DATABASES from a URL; a percent-encoded folder as host is a unix socket."""
    value = text(name)
    shape = "postgresql://user:password@host:5432/database, or postgresql://user@%2Fsocket%2Ffolder/database"
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise _refused(name, value, shape) from None
    if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
        raise _refused(name, value, shape)
    place = parts.netloc.rpartition("@")[2]
    # urlsplit lowers the case of hostname, which a folder does not survive
    host = parts.hostname or "" if place.startswith("[") else unquote(place.split(":")[0])
    return {
        "ENGINE": "platform_site.postgresql",
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(port or ""),
        "OPTIONS": CONNECTION_LIMITS | dict(parse_qsl(parts.query)),
    }


def url(name: str, default: str) -> str:
    """An http(s) address without a path."""
    value = text(name, default).rstrip("/")
    if not _is_origin(value):
        raise _refused(name, value, "an address such as https://platform.example.com or http://127.0.0.1:8000")
    return value


def origins(name: str) -> list[str]:
    """A comma-separated list of http(s) addresses without a path, as browsers send them in Origin."""
    values = [value.rstrip("/").lower() for value in names(name, [])]
    for value in values:
        if not _is_origin(value):
            raise _refused(name, value, "addresses such as https://app.example.com, separated by commas")
    return values


def _is_origin(value: str) -> bool:
    try:
        parts = urlsplit(value)
        plain = value == f"{parts.scheme}://{parts.netloc}" and "@" not in value and "*" not in value
        return plain and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def redis(name: str) -> str:
    value = text(name)
    if not value.startswith(("redis://", "rediss://", "unix://")):
        raise _refused(name, value, "redis://host:6379/0 or unix:///path/redis.sock")
    return value


@dataclass(frozen=True)
class MailServer:
    """Where mail goes: to an SMTP server, or, without a host, to the log of whoever sends it."""

    host: str = ""
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    starttls: bool = False
    tls: bool = False  # from the first byte

    @property
    def backend(self) -> str:
        return "common.smtp.EmailBackend" if self.host else "django.core.mail.backends.console.EmailBackend"


def mail_server(name: str) -> MailServer:
    """A mail server from a URL; ?tls=true asks a server at smtp:// for STARTTLS."""
    value = text(name, "console://")
    shape = "smtp://user:password@host:587?tls=true, smtps://user:password@host:465, or console://"
    if value == "console://":
        return MailServer()
    try:
        parts = urlsplit(value)
        port, options = parts.port, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _refused(name, value, shape) from None
    starttls, tls = options.pop("tls", "false"), parts.scheme == "smtps"
    is_complete = parts.scheme in {"smtp", "smtps"} and parts.hostname and port != 0 and parts.path in {"", "/"}
    if not is_complete or options or starttls not in {"true", "false"} or bool(parts.username) != bool(parts.password):
        raise _refused(name, value, shape)
    return MailServer(
        host=parts.hostname or "",
        port=port or (465 if tls else 587 if starttls == "true" else 25),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        starttls=starttls == "true" and not tls,
        tls=tls,
    )


def mailbox(name: str, default: str) -> str:
    """Who mail comes from: an address, or a name and an address."""
    value = text(name, default)
    try:
        validate_email(parseaddr(value)[1] if value.isprintable() else "")
    except ValidationError:
        raise _refused(name, value, "Platform <platform@example.com>, or platform@example.com") from None
    return value


def _refused(name: str, value: str, shape: str) -> ImproperlyConfigured:
    shown = "is not set" if not value else f"is {value.split('@')[-1]!r}"
    return ImproperlyConfigured(f"{name} {shown}; it should be {shape}.")
