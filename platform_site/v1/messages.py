"""A chat's messages: each who says it, and a text. The form that they get as a whole is the base model's, or the plain one."""

from __future__ import annotations

from typing import Any, NoReturn

from common.errors import Invalid
from common.text import one_line
from inference.engine.request import MAX_MESSAGES

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""What a developer says is what the system says, by its newer name."""


def messages_in(value: object) -> list[dict[str, str]]:
    """Each with its role and content. Raises Invalid, which names the place."""
    if not isinstance(value, list) or not value:
        _refuse("messages", "This should be a list of one message or more.")
    if len(value) > MAX_MESSAGES:
        _refuse("messages", f"{len(value):,} messages are too many; at most {MAX_MESSAGES} are possible.")
    return [_message(f"messages[{number}]", each) for number, each in enumerate(value)]


def _message(place: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        _refuse(place, "A message should be an object with role and content.")
    role = value.get("role")
    if not isinstance(role, str) or role not in ROLES:
        _refuse(f"{place}.role", f"This should be one of {', '.join(ROLES)}: tools are not served here.")
    for name, given in value.items():
        if name not in ("role", "content") and given not in (None, []):
            shown = one_line(name, 60)
            _refuse(f"{place}.{shown}", "A message has a role and content here, and nothing else.")
    return {"role": ROLES[role], "content": _text(f"{place}.content", value.get("content"))}


def _text(place: str, value: Any) -> str:
    """A text, or one in parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        _refuse(place, "This should be a text, or a list of parts with text.")
    for number, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            _refuse(
                f"{place}[{number}]", 'A part should be {"type": "text", "text": ..}: there is nothing but text here.'
            )
    return "".join(part["text"] for part in value)


def _refuse(name: str, message: str) -> NoReturn:
    raise Invalid(message, field=name)
