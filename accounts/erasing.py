"""The end of organizations and accounts whose grace period is over.

Each step may be done again, and what a turn of the keeper has left undone the next one does: the organization's own row,
which is what it is found by, goes last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS, models
from django.db.models import Q

from accounts import audit, tokens
from accounts.models import Invitation, MailedToken, Organization, User
from common import blobs
from common.clock import ServerClock
from common.events import JobEvent
from common.jobs import JobStatus, job_models, request_cancel
from common.models import OutboxMessage
from common.outages import AWAY
from common.tenancy import operator

logger = logging.getLogger(__name__)

EVENTS_AT_ONCE = 10_000
KEEPER = "keeper"


def erase_what_is_over() -> None:
    """Each by itself: what cannot be deleted now holds up no other, and is tried again. Raises one of AWAY."""
    with operator():
        organizations = list(_over(Organization.objects.all()).values_list("pk", flat=True))
        users = list(_over(User.objects.all()).values_list("pk", flat=True))
    _each(erase_organization, organizations)
    _each(erase_account, users)


def erase_organization(organization_id: UUID) -> None:
    """Delete it with all its rows and files; what runs in it is stopped first, and waited for until the next turn.

    The audit log, which has no reference to it, stays.
    """
    if not _has_stopped(organization_id):
        return
    for model in tenant_models():
        if issubclass(model, JobEvent):
            _delete_in_batches(model, organization_id)
    _delete_rows(organization_id)
    blobs.delete_tree(blobs.root(organization_id))
    _delete_organization(organization_id)


def tenant_models() -> list[type[models.Model]]:
    """Whatever refers to an organization belongs to it: a new table needs no word here."""
    relations: Iterable[Any] = Organization._meta.get_fields(include_hidden=True)
    return [
        relation.related_model
        for relation in relations
        if isinstance(relation, models.ManyToOneRel) and relation.field.attname == "organization_id"
    ]


def erase_account(user_id: UUID) -> None:
    """Delete it, and what has its address. What the user made in others' organizations stays, and names nobody."""
    with operator():
        user = tokens.hold(_over(User.objects.filter(pk=user_id)))
        if user is None:  # it has just been restored
            return
        MailedToken.objects.filter(address=user.email).delete()
        OutboxMessage.objects.filter(recipient=user.email).delete()
        Invitation.objects.filter(email=user.email).delete()
        _forget_in_the_admin(user)
        LogEntry.objects.filter(Q(object_repr__contains=user.email) | Q(change_message__contains=user.email)).delete()
        user.delete()
        audit.record(audit.PLATFORM, actor=KEEPER, action="account.delete", target=f"user:{user_id}")


def _over(rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
    return rows.filter(closes_at__lte=ServerClock())


def _each(erase: Callable[[UUID], None], ids: list[UUID]) -> None:
    for each in ids:
        try:
            erase(each)
        except AWAY:
            raise
        except Exception:
            logger.exception("%s could not be deleted as a whole; it is gone on with.", each)


def _has_stopped(organization_id: UUID) -> bool:
    """Whether none of its jobs is at work any more; those that are have been asked to stop. Nobody begins another one."""
    at_work = 0
    for model in job_models():
        with operator():
            for job in model.objects.filter(organization_id=organization_id, status=JobStatus.RUNNING):
                request_cancel(job)
                at_work += 1
    return at_work == 0


def _delete_in_batches(model: type[models.Model], organization_id: UUID) -> None:
    rows: Any = model._base_manager
    while True:
        with operator():
            some = list(rows.filter(organization_id=organization_id).values_list("pk", flat=True)[:EVENTS_AT_ONCE])
            rows.filter(pk__in=some)._raw_delete(DEFAULT_DB_ALIAS)
        if not some:
            return


def _delete_rows(organization_id: UUID) -> None:
    """In one transaction, at whose end the references between them are checked: their order does not matter."""
    with operator():
        if not _over(Organization.objects.filter(pk=organization_id)).select_for_update().exists():
            return
        for model in tenant_models():
            rows: Any = model._base_manager
            rows.filter(organization_id=organization_id)._raw_delete(DEFAULT_DB_ALIAS)


def _delete_organization(organization_id: UUID) -> None:
    """Refused by PostgreSQL where a request that had begun before has put something in meanwhile: the next turn finds it."""
    with operator():
        organization = _over(Organization.objects.filter(pk=organization_id)).select_for_update().first()
        if organization is None:
            return
        _forget_in_the_admin(organization)
        Organization.objects.filter(pk=organization_id)._raw_delete(DEFAULT_DB_ALIAS)
        target = f"organization:{organization_id}"
        audit.record(organization_id, actor=KEEPER, action="organization.delete", target=target)


def _forget_in_the_admin(row: Organization | User) -> None:
    """Django's own history of its pages names what it tells of; the audit log has the same by id."""
    kind = ContentType.objects.get_for_model(type(row))
    LogEntry.objects.filter(content_type=kind, object_id=str(row.pk)).delete()
