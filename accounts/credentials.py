"""What an address and a password have to be, and whether a password is somebody's."""

from __future__ import annotations

from contextlib import nullcontext
from uuid import UUID

from django.contrib.auth.hashers import check_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from accounts import audit, throttles
from accounts.models import User
from common.errors import DomainError, Invalid, NotSignedIn
from common.tenancy import Principal, in_scope, operator
from common.text import is_storable

# What a login for an unknown address is compared with, so that it takes as long as one for a known address: a random
# password, by the hasher of the settings. Hashed here, it would take a quarter of a second of each start.
NOBODYS_PASSWORD = "bcrypt_sha256$$2b$12$QwlXRF2xTsfWGI.J2JOwqufdy4wThszJlXBUNYFjTUwAbJd5.4jYS"  # noqa: S105
MAX_ADDRESS_CHARACTERS = 254


class WrongCredentials(DomainError):
    code = "WRONG_CREDENTIALS"

    def __init__(self, message: str = "The address or the password is not right.", field: str | None = None) -> None:
        super().__init__(message, field=field)


def is_right(password: str, user: User | None) -> bool:
    """Whether it is the user's password. It takes as long for nobody's."""
    right = is_storable(password) and check_password(password, user.password if user else NOBODYS_PASSWORD)
    return right and user is not None


def confirmed(actor: Principal, password: str, field: str, *, log: UUID = audit.PLATFORM) -> User:
    """The actor, who has typed their password once more. Whoever could not is in the log of what it was asked for.

    In a scope that entry is the caller's to commit. Raises NotSignedIn for whoever is no user, WrongCredentials, and TooManyAttempts.
    """
    user = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id else None
    if user is None:
        raise NotSignedIn
    throttles.password_tried(user.email)
    if not is_right(password, user):
        with nullcontext() if in_scope() else operator():
            audit.record(log, actor=actor.name, action="password.refuse")
        raise wrong_password(field)
    return user


def wrong_password(field: str) -> WrongCredentials:
    return WrongCredentials("The current password is not right.", field=field)


def usable_address(typed: str) -> str:
    """An address as accounts have it. Raises Invalid with INVALID_EMAIL."""
    address = User.objects.normalize_email(typed)
    name = address.rpartition("@")[0]
    try:
        # in quotes each mailbox has many spellings, some with control characters
        validate_email(address if is_storable(address) and name.isascii() and '"' not in name else "")
    except ValidationError:
        raise Invalid("This is not an e-mail address.", code="INVALID_EMAIL", field="email") from None
    if len(address) > MAX_ADDRESS_CHARACTERS:
        raise Invalid(
            f"An e-mail address has at most {MAX_ADDRESS_CHARACTERS} characters.", code="INVALID_EMAIL", field="email"
        )
    return address


def set_password(user: User, password: str, field: str) -> None:
    """Hash a new password into `user`, which is not saved. Raises Invalid with WEAK_PASSWORD."""
    if not is_storable(password):
        raise Invalid("A password has no control characters.", code="WEAK_PASSWORD", field=field)
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid(" ".join(error.messages), code="WEAK_PASSWORD", field=field) from None
    user.set_password(password)
