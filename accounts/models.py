"""Users, the organizations that everything belongs to, and who is what in which."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any, Self
from uuid import UUID, uuid4

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from accounts.permissions import Permission, organizations_that_permit
from accounts.roles import Role as Role
from accounts.usage_kinds import PERIODS, PeriodStart, UsageKind
from common.tenancy import Principal, TenantQuerySet

MAX_DOMAIN_CHARACTERS = 255


def _one_spelling(domain: str) -> str:
    """What mail is sent to is a domain's ASCII form, which has many others: in wide letters, say, or with soft hyphens."""
    if len(domain) > MAX_DOMAIN_CHARACTERS or (domain.isascii() and "xn--" not in domain):
        return domain
    try:
        return domain.encode("idna").decode("idna")
    except UnicodeError:
        return domain


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    @classmethod
    def normalize_email(cls, email: str | None) -> str:
        """One address is one account, however it is typed."""
        name, at, domain = (email or "").strip().lower().rpartition("@")
        return f"{name}{at}{_one_spelling(domain)}"

    def visible_to(self, principal: Principal) -> models.QuerySet[User]:
        """Oneself, and whoever shares an organization."""
        colleagues = Membership.objects.filter(organization_id__in=principal.organizations).values("user_id")
        return self.filter(Q(pk=principal.user_id) | Q(pk__in=colleagues))

    def told_of(self, organization_id: UUID) -> models.QuerySet[User]:
        """Who may learn from a mail what happens in the organization: its active members that have an address."""
        members = Membership.objects.filter(organization_id=organization_id).values("user_id")
        return self.filter(pk__in=members, is_active=True).exclude(email="")

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email=self.normalize_email(username))


class User(AbstractBaseUser, PermissionsMixin):
    """A person. What they may see follows from their memberships; `is_staff` opens the operators' admin."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    email = models.EmailField(unique=True, error_messages={"unique": "This address has an account already."})
    name = models.CharField(max_length=150, blank=True, default="")
    email_verified = models.BooleanField(default=False)
    is_staff = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    closes_at = models.DateTimeField(null=True, editable=False, help_text="When it is deleted, unless it is restored.")

    objects = UserManager()

    EMAIL_FIELD = USERNAME_FIELD = "email"
    REQUIRED_FIELDS = []

    def __str__(self) -> str:
        return self.email


class OrganizationStatus(models.TextChoices):
    ACTIVE = "ACTIVE"
    CLOSING = "CLOSING"


class OrganizationQuerySet(models.QuerySet["Organization"]):
    def visible_to(self, principal: Principal) -> Self:
        return self.filter(pk__in=principal.organizations)


class Organization(models.Model):
    """A tenant. Everything else belongs to exactly one; signing up creates a personal one."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    name = models.CharField(max_length=150)
    slug = models.SlugField(max_length=60, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    closes_at = models.DateTimeField(null=True, editable=False, help_text="When it is deleted, unless it is restored.")

    objects = OrganizationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return self.name

    @property
    def status(self) -> OrganizationStatus:
        return OrganizationStatus.ACTIVE if self.closes_at is None else OrganizationStatus.CLOSING


class Membership(models.Model):
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=6, choices=Role.choices, default=Role.MEMBER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at", "id"]
        constraints = [models.UniqueConstraint(fields=["organization", "user"], name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} in {self.organization}"

    @property
    def is_lasting_owner(self) -> bool:
        """An owner whose account is not about to be deleted: an organization keeps one."""
        return self.role == Role.OWNER and self.user.closes_at is None


class InvitationQuerySet(TenantQuerySet):
    def visible_to(self, principal: Principal) -> Self:
        """Those that nobody has accepted, to whoever may invite."""
        return self.pending().filter(
            organization_id__in=organizations_that_permit(principal, Permission.MANAGE_MEMBERS)
        )

    def pending(self) -> Self:
        return self.filter(accepted_at=None)


class Invitation(models.Model):
    """An address that is asked to join; its token, of which only the hash is kept, makes one member, once."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField()
    role = models.CharField(max_length=6, choices=Role.choices)
    token_sha256 = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True)

    objects = InvitationQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "email"], condition=Q(accepted_at=None), name="invitation_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.email} to {self.organization}"


class ApiKeyQuerySet(TenantQuerySet):
    def visible_to(self, principal: Principal) -> Self:
        """Whoever may not make keys does not see them either."""
        return self.filter(organization_id__in=organizations_that_permit(principal, Permission.MANAGE_KEYS))

    def working(self) -> Self:
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None)


class ApiKey(models.Model):
    """A program's access to one organization, in one role. The key itself is known by its hash alone."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=150)
    prefix = models.CharField(max_length=16)
    secret_sha256 = models.CharField(max_length=64, unique=True)
    role = models.CharField(max_length=6, choices=Role.choices, default=Role.MEMBER)
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.prefix}… {self.name}"


class Quota(models.Model):
    """What an organization may use, where that is not the installation's default. Operators alone write it."""

    organization = models.OneToOneField(Organization, primary_key=True, on_delete=models.CASCADE, related_name="quota")
    storage_bytes = models.PositiveBigIntegerField(null=True, blank=True, validators=[MaxValueValidator(2**53)])
    concurrent_runs = models.PositiveIntegerField(null=True, blank=True, help_text="Queued and running together.")
    training_minutes_per_month = models.PositiveIntegerField(null=True, blank=True, help_text="Calendar months, UTC.")
    tokens_per_day = models.PositiveBigIntegerField(
        null=True, blank=True, validators=[MaxValueValidator(2**53)], help_text="Prompts and answers; days of UTC."
    )
    requests_per_minute = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Of each user, and of the API keys together.",
    )

    def __str__(self) -> str:
        return f"Quota of {self.organization}"


class UsageEntryQuerySet(TenantQuerySet):
    def counting(self) -> Self:
        """Those that count now: of the present month or day, and no reservation that was forgotten."""
        lasting = Q(kind__in=[kind for kind in UsageKind if kind not in PERIODS])
        of_now = (Q(kind=kind, at__gte=PeriodStart(period)) for kind, period in PERIODS.items())
        return self.filter(reduce(or_, of_now, lasting), Q(lapses_at=None) | Q(lapses_at__gt=Now()))


class UsageEntry(models.Model):
    """A line of the ledger: what one thing of an organization's uses, or is about to. usage.py keeps it."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=16, choices=UsageKind.choices)
    key = models.CharField(max_length=60, help_text="What uses it, such as upload:<id>.")
    amount = models.PositiveBigIntegerField(help_text="Bytes, runs, seconds, or tokens.")
    at = models.DateTimeField(db_default=Now())
    lapses_at = models.DateTimeField(null=True, help_text="Until when a reservation counts that nobody settles.")

    objects = UsageEntryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "usage entries"
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["organization", "kind", "key"], name="usageentry_once")]
        indexes = [
            # sums read the index alone
            models.Index(fields=["organization", "kind", "at"], include=["amount", "lapses_at"], name="usageentry_sums")
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.amount:,} {self.get_kind_display()}"


class AuditHead(models.Model):
    """The end of an organization's audit log: whoever appends locks it, and a log that was cut short does not fit it."""

    organization_id = models.UUIDField(primary_key=True)
    sequence = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.organization_id} {self.sequence}"


class AuditQuerySet(TenantQuerySet):
    def visible_to(self, principal: Principal) -> Self:
        return self.filter(organization_id__in=organizations_that_permit(principal, Permission.READ_AUDIT_LOG))


class AuditEntry(models.Model):
    """One thing that was done, chained to the one before. Ids only, and no foreign keys: it outlasts what it tells of."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization_id = models.UUIDField()
    sequence = models.BigIntegerField()
    at = models.DateTimeField()
    actor = models.CharField(max_length=60)
    action = models.CharField(max_length=60)
    target = models.CharField(max_length=120)
    address = models.CharField(max_length=45, help_text="Of the network: where the request came from.")
    details = models.JSONField(default=dict)
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    objects = AuditQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "audit entries"
        ordering = ["-sequence"]
        constraints = [models.UniqueConstraint(fields=["organization_id", "sequence"], name="auditentry_sequence")]

    def __str__(self) -> str:
        return f"{self.sequence} {self.action}"


class RefreshTokenQuerySet(models.QuerySet["RefreshToken"]):
    def live(self) -> Self:
        """Those whose session goes on: a session is its family, and a used one says that it has gone on."""
        return self.filter(revoked_at=None, expires_at__gt=timezone.now())


class RefreshToken(models.Model):
    """One refresh token, known by its hash. Each use replaces it; a second use revokes its whole family."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    family = models.UUIDField(default=uuid4)
    token_sha256 = models.CharField(max_length=64, unique=True)
    begun_at = models.DateTimeField(db_default=Now(), help_text="When its session was: the first of its family.")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    objects = RefreshTokenQuerySet.as_manager()

    class Meta:
        # each request asks whether its session is live; of a revoked one this holds nothing, however long it was
        indexes = [models.Index(fields=["family"], condition=Q(revoked_at=None), name="refreshtoken_unrevoked")]

    def __str__(self) -> str:
        return f"{self.user} since {self.created_at:%Y-%m-%d}"


class MailedToken(models.Model):
    """A secret that was mailed to an address, known by its hash. Whoever has it reads the mail there.

    It works once, so that using it removes the row, and a new one of the same purpose takes its place. An address needs
    no account: asking for one that has none is to take as long.
    """

    class Purpose(models.TextChoices):
        VERIFY_EMAIL = "VERIFY_EMAIL"
        RESET_PASSWORD = "RESET_PASSWORD"  # noqa: S105

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    purpose = models.CharField(max_length=20, choices=Purpose.choices)
    address = models.EmailField()
    token_sha256 = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["address", "purpose"], name="mailedtoken_once")]

    def __str__(self) -> str:
        return f"{self.get_purpose_display()} of {self.address}"
