"""What accounts are told by mail, for tests."""

from __future__ import annotations

import re

from django.db.models.expressions import RawSQL

from common.models import OutboxMessage
from common.tenancy import operator


def mails_to(address: str) -> list[OutboxMessage]:
    """All that wait for the address, the oldest first."""
    with operator():
        # a test's one transaction has one time: by the command of it that made them
        return list(
            OutboxMessage.objects.filter(recipient=address).order_by("created_at", RawSQL("cmin::text::int", []))
        )


def subjects_to(address: str) -> list[str]:
    return [mail.subject for mail in mails_to(address)]


def token_in(mail: OutboxMessage) -> str:
    """The token, which stands alone in its line, and again in what can be pasted."""
    (token,) = re.findall(r"^    (\S+)$", mail.body, re.MULTILINE)
    assert mail.body.count(token) == 2
    return token
