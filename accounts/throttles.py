"""How often one may try to sign in, sign up, and have mail sent: what can be guessed, or annoys, is not tried for ever.

Counted for each operation, by the account or mailbox that it is about, whether or not there is one, and by the network address
that it comes from. While Redis is away nobody can count, and so nothing of this is done.
"""

from __future__ import annotations

import hashlib
import logging
from uuid import UUID

from django.conf import settings
from redis import RedisError

from accounts.models import User
from common.errors import TooManyAttempts, Unavailable
from common.origin import network
from common.throttle import Rate, Standing, hit

logger = logging.getLogger(__name__)

QUARTER_HOUR_S, HOUR_S, DAY_S = 900, 3600, 86_400


def password_tried(account: str) -> None:
    """Somebody says that they know the password of the account with this address. Raises TooManyAttempts and Unavailable."""
    token_tried()  # first: who is refused for where they are does not lock the account
    _count(Rate("password-account", settings.LOGINS_PER_ACCOUNT, QUARTER_HOUR_S), _hidden(account))


def token_tried() -> None:
    """Somebody brings a token that was mailed, or what may be one. Raises TooManyAttempts and Unavailable."""
    _count_address(Rate("attempt-address", settings.ATTEMPTS_PER_ADDRESS, QUARTER_HOUR_S))


def signed_up() -> None:
    """Somebody wants an account. Raises TooManyAttempts and Unavailable."""
    _count_address(Rate("signup-address", settings.SIGNUPS_PER_ADDRESS, HOUR_S))


def mail_asked_for(mailbox: str) -> None:
    """Somebody has mail sent to a mailbox that need not be theirs. Raises TooManyAttempts and Unavailable."""
    token_tried()
    _count_mail(mailbox)


def invited(organization_id: UUID, mailbox: str) -> None:
    """An organization asks somebody to join. Raises TooManyAttempts and Unavailable."""
    _count_mail(mailbox)
    _count(Rate("invitation-organization", settings.INVITATIONS_PER_ORGANIZATION, DAY_S), str(organization_id))


def _count_mail(mailbox: str) -> None:
    _count(Rate("mail-mailbox", settings.MAILS_PER_MAILBOX, HOUR_S), _hidden(mailbox))


def _count_address(rate: Rate) -> None:
    """What no request has asked for, a command say, is not counted."""
    if (asked_from := network()) is not None:
        _count(rate, asked_from)


def _count(rate: Rate, who: str) -> None:
    standing = _standing(rate, who)
    if not standing.passes:
        raise TooManyAttempts(standing.reset_s)


def _standing(rate: Rate, who: str) -> Standing:
    try:
        return hit(rate, who)
    except RedisError:
        logger.warning("Redis counts no attempts: nobody can sign in.", exc_info=True)
        raise Unavailable("This cannot be answered safely now; try again in a moment.") from None


def _hidden(mailbox: str) -> str:
    """Redis holds no mail addresses. However one is typed, it is one."""
    return hashlib.sha256(User.objects.normalize_email(mailbox).encode("utf-8", "surrogatepass")).hexdigest()
