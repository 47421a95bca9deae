"""What the keeper does from time to time for accounts."""

from datetime import timedelta

from django.utils import timezone

from accounts import usage
from accounts.erasing import erase_what_is_over
from accounts.models import Invitation, MailedToken, RefreshToken
from common.tenancy import operator
from common.timetable import every


@every(timedelta(seconds=30), slow=True)
def erase_what_has_closed() -> None:
    erase_what_is_over()


@every(timedelta(hours=1))
def remove_expired_refresh_tokens() -> None:
    with operator():
        RefreshToken.objects.filter(expires_at__lt=timezone.now() - timedelta(days=1)).delete()


@every(timedelta(hours=1))
def remove_expired_invitations() -> None:
    with operator():
        Invitation.objects.filter(expires_at__lt=timezone.now(), accepted_at=None).delete()


@every(timedelta(hours=1))
def remove_expired_mailed_tokens() -> None:
    with operator():
        MailedToken.objects.filter(expires_at__lt=timezone.now()).delete()


@every(timedelta(hours=1))
def remove_usage_of_long_ago() -> None:
    usage.remove_what_counts_no_more()
