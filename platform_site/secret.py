"""The installation's secret: given in production, made once and kept under var/ otherwise."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from platform_site import environment

MINIMUM_CHARACTERS = 50


def secret_key(home: Path, production: bool) -> str:
    """SECRET_KEY of the environment, or the one in `home`, made on first use by whichever process is first."""
    given = environment.text("SECRET_KEY")
    if given or production:
        if len(given) < MINIMUM_CHARACTERS:
            raise ImproperlyConfigured(f"SECRET_KEY should be {MINIMUM_CHARACTERS} or more random characters.")
        return given
    path = home / "secret_key"
    try:
        home.mkdir(parents=True, exist_ok=True)
        beside = home / f".secret_key.{os.getpid()}"
        if not path.exists():
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(64))
            try:
                os.link(beside, path)  # unlike rename it fails where another process was first
            except FileExistsError:
                pass
            finally:
                beside.unlink()
        return path.read_text()
    except OSError as error:
        raise ImproperlyConfigured(
            f"{home} should be a folder that can be written ({error.strerror}); PLATFORM_HOME moves it."
        ) from error
