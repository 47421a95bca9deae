"""Reads the environment for settings.py, and refuses what it cannot use by the variable's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

_env = environ.Env()


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
        "ENGINE": "django_prometheus.db.backends.postgresql",
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(port or ""),
        "OPTIONS": dict(parse_qsl(parts.query)),
    }


def url(name: str, default: str) -> str:
    """An http(s) address without a path."""
    value = text(name, default).rstrip("/")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and not parts.path and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise _refused(name, value, "an address such as https://platform.example.com or http://127.0.0.1:8000")
    return value


def redis(name: str) -> str:
    value = text(name)
    if not value.startswith(("redis://", "rediss://", "unix://")):
        raise _refused(name, value, "redis://host:6379/0 or unix:///path/redis.sock")
    return value


def _refused(name: str, value: str, shape: str) -> ImproperlyConfigured:
    shown = "is not set" if not value else f"is {value.split('@')[-1]!r}"
    return ImproperlyConfigured(f"{name} {shown}; it should be {shape}.")
