"""Text that people type, what PostgreSQL can hold of it, and text that people read."""

from __future__ import annotations

import unicodedata
from datetime import timedelta

from common.errors import Invalid


def is_storable(text: str) -> bool:
    """PostgreSQL refuses NUL, and UTF-8 has no lone surrogates: no row holds such a text, and none can be made to."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


_JOINERS = "\u200c\u200d"  # of scripts and emoji


def _shows(character: str) -> bool:
    """Printable, or a blank of any width: some systems put narrow ones into file names."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def plain_text(text: str, field: str, limit: int) -> str:
    """A name without surrounding blanks: 1 to `limit` printable characters. Raises Invalid."""
    stripped = text.strip()
    if not stripped or len(stripped) > limit or not all(map(_shows, stripped)):
        raise Invalid(f"{field} should be 1 to {limit} characters, none of them a control character.", field=field)
    return stripped


def one_line(text: str, limit: int) -> str:
    """The first `limit` characters of a text as one line: no control character survives, so no mail header begins in it."""
    shown = "".join(character if _shows(character) else " " for character in text)
    return " ".join(shown.split())[:limit]


def spelled(duration: timedelta) -> str:
    """A duration in its two largest units: 1 h 5 min, 2 min 4 s, 12 s."""
    minutes, seconds = divmod(max(0, round(duration.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def age(duration: timedelta) -> str:
    """A duration in its largest unit: 3 d, 5 h, 12 min, 41 s."""
    seconds = max(0, round(duration.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
