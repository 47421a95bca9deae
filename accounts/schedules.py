"""What the keeper does from time to time for accounts."""

from datetime import timedelta

from django.utils import timezone

from accounts.models import RefreshToken
from common.tenancy import operator
from common.timetable import every


@every(timedelta(hours=1))
def remove_expired_refresh_tokens() -> None:
    with operator():
        RefreshToken.objects.filter(expires_at__lt=timezone.now() - timedelta(days=1)).delete()
