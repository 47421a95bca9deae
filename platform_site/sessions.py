"""The sessions of the admin: rows, known by what a browser says they are called."""

from __future__ import annotations

from django.contrib.sessions.backends import db

from common.text import is_storable


class SessionStore(db.SessionStore):
    def _validate_session_key(self, key: str | None) -> bool:
        """A cookie may say anything, NUL included, which PostgreSQL would refuse to look for."""
        return bool(super()._validate_session_key(key)) and is_storable(key or "")  # type: ignore[misc]
