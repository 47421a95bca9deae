"""What people ask of their own accounts: to sign up, to sign in, and to go on."""

from __future__ import annotations

from uuid import uuid4

from django.contrib.auth.hashers import check_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError
from django.utils.text import slugify

from accounts import tokens
from accounts.models import Membership, Organization, Role, User
from common.errors import DomainError, Invalid
from common.tenancy import operator
from common.text import is_storable


class EmailTaken(DomainError):
    code = "EMAIL_TAKEN"


class WrongCredentials(DomainError):
    code = "WRONG_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("The address or the password is not right.")


# What a login for an unknown address is compared with, so that it takes as long as one for a known address: a random
# password, by the hasher of the settings. Hashed here, it would take a quarter of a second of each start.
_NOBODYS_PASSWORD = "bcrypt_sha256$$2b$12$QwlXRF2xTsfWGI.J2JOwqufdy4wThszJlXBUNYFjTUwAbJd5.4jYS"  # noqa: S105


def sign_up(*, email: str, password: str, name: str = "", organization_name: str | None = None) -> tokens.IssuedSession:
    """A new user, owner of an organization of their own. Raises Invalid and EmailTaken."""
    user = User(email=User.objects.normalize_email(email), name=name.strip())
    _check_address(user.email)
    _check_text(user.name, "name")
    _check_password(password, user)
    user.set_password(password)
    title = (organization_name or "").strip() or f"{(user.name or user.email.partition('@')[0])[:100]}'s organization"
    _check_text(title, "organizationName")
    organization = Organization(name=title, slug=f"{slugify(title)[:40] or 'organization'}-{uuid4().hex[:8]}")
    try:
        with operator():
            user.save(force_insert=True)
            organization.save(force_insert=True)
            Membership.objects.create(organization=organization, user=user, role=Role.OWNER)
            return tokens.issue_session(user)
    except IntegrityError:
        raise EmailTaken("This address has an account already: log in, or use another one.", field="email") from None


def log_in(*, email: str, password: str) -> tokens.IssuedSession:
    """Raises WrongCredentials, alike in words and in time for known and unknown addresses."""
    user = User.objects.filter(email=User.objects.normalize_email(email)).first() if is_storable(email) else None
    right = is_storable(password) and check_password(password, user.password if user else _NOBODYS_PASSWORD)
    if user is None or not right or not user.is_active:
        raise WrongCredentials
    return tokens.issue_session(user)


def refresh(*, refresh_token: str) -> tokens.IssuedSession:
    """Exchange a refresh token for a new session. Raises InvalidToken."""
    return tokens.rotate(refresh_token)


def _check_address(email: str) -> None:
    try:
        validate_email(email if is_storable(email) else "")
    except ValidationError:
        raise Invalid("This is not an e-mail address.", code="INVALID_EMAIL", field="email") from None
    if len(email) > 254:
        raise Invalid("An e-mail address has at most 254 characters.", code="INVALID_EMAIL", field="email")


def _check_password(password: str, user: User) -> None:
    if not is_storable(password):
        raise Invalid("A password has no control characters.", code="WEAK_PASSWORD", field="password")
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise Invalid(" ".join(error.messages), code="WEAK_PASSWORD", field="password") from None


def _check_text(text: str, field: str) -> None:
    if len(text) > 150 or not is_storable(text):
        raise Invalid("At most 150 characters, and no control characters.", field=field)
