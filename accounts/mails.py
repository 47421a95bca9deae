"""Mails to people about what they asked for, and about their accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

from accounts.models import Organization, User
from common.jobs import Job
from common.lookup import api_id
from common.outbox import mail
from common.text import spelled


def tell_creator(job: Job, template: str) -> None:
    """Mail whoever asked for `job` how it ended, once, in the caller's transaction.

    Nobody is told where they have left the organization since, or have no account any more.
    """
    if job.created_by_id is None:
        return
    creator = User.objects.told_of(job.organization_id).filter(pk=job.created_by_id).first()
    if creator is None:
        return
    kind = str(job._meta.verbose_name).replace(" ", "-")
    mail(
        event=f"{kind}/{job.pk}/{job.status}",
        recipient=creator.email,
        template=template,
        context={
            "job": job,
            "api_id": api_id(job),
            "took": spelled(job.finished_at - job.started_at) if job.finished_at and job.started_at else None,
        },
        organization_id=job.organization_id,
    )


def ask_to_verify(address: str, token: str) -> None:
    """Whoever has signed up shows with `token` that the address is theirs."""
    _tell(address, "email_verification", token=token)


def tell_of_account(address: str) -> None:
    """Somebody has signed up with an address that has an account."""
    _tell(address, "account_exists")


def offer_reset(address: str, token: str) -> None:
    _tell(address, "password_reset", token=token)


def tell_of_new_password(user: User) -> None:
    _tell(user.email, "password_changed")


def tell_members(organization: Organization, template: str) -> None:
    """What becomes of their organization. It is no mail of the organization's, with which it would be deleted."""
    for member in User.objects.told_of(organization.pk):
        _tell(member.email, template, organization=organization, api_id=api_id(organization))


def tell_of_account_closing(address: str, closes_at: datetime) -> None:
    _tell(address, "account_closing", closes_at=closes_at)


def tell_of_account_restored(address: str) -> None:
    _tell(address, "account_restored")


def _tell(address: str, template: str, **context: Any) -> None:
    """Each is an event of its own: asked for twice, it is told twice."""
    mail(
        event=f"{template.replace('_', '-')}/{uuid4()}",
        recipient=address,
        template=template,
        context={"address": address, **context},
        organization_id=None,
    )
