"""What text PostgreSQL can hold."""

from __future__ import annotations


def is_storable(text: str) -> bool:
    """PostgreSQL refuses NUL, and UTF-8 has no lone surrogates: no row holds such a text, and none can be made to."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
