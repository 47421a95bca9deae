"""Organizations and accounts that are about to be deleted, for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import F

from accounts.models import AuditEntry, Organization, User
from common.tenancy import operator
from tests.cast import PASSWORD, Person
from tests.rows import global_id

DELETE = """mutation ($input: DeleteOrganizationInput!) { answer: deleteOrganization(input: $input) {
  __typename ... on Organization { status closesAt } ... on OperationInfo { messages { kind code field } } } }"""
RESTORE = """mutation ($input: RestoreOrganizationInput!) { answer: restoreOrganization(input: $input) {
  __typename ... on Organization { status closesAt } ... on OperationInfo { messages { kind code field } } } }"""
DELETE_ACCOUNT = """mutation ($input: DeleteAccountInput!) { answer: deleteAccount(input: $input) {
  __typename ... on Done { ok } ... on OperationInfo { messages { kind code field message } } } }"""


def refusal(code: str, kind: str = "ERROR", field: str | None = None) -> dict[str, Any]:
    return {"__typename": "OperationInfo", "messages": [{"kind": kind, "code": code, "field": field}]}


def delete(person: Person, password: str = PASSWORD) -> dict[str, Any]:
    asked = {"organizationId": global_id(person.organization), "password": password}
    return person.data(DELETE, input=asked)["answer"]


def restore(person: Person) -> dict[str, Any]:
    return person.data(RESTORE, input={"organizationId": global_id(person.organization)})["answer"]


def delete_account(person: Person, password: str = PASSWORD) -> dict[str, Any]:
    return person.data(DELETE_ACCOUNT, input={"password": password})["answer"]


def fresh(organization: Organization) -> Organization:
    with operator():
        return Organization.objects.get(pk=organization.pk)


def let_the_grace_period_pass() -> None:
    """As if it had: the clock is the far edge."""
    for model in (Organization, User):
        with operator():
            model.objects.exclude(closes_at=None).update(closes_at=F("closes_at") - timedelta(days=8))


def log_of(organization_id: object) -> list[tuple[str, str, str]]:
    with operator():
        entries = AuditEntry.objects.filter(organization_id=organization_id).order_by("sequence")
        return list(entries.values_list("action", "actor", "target"))
