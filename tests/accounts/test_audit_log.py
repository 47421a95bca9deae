"""The audit log: appended to and never changed, and what was done to it all the same is found."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, connection, transaction
from django.db.models import F

from accounts import audit, tokens
from accounts.actions import passwords, users
from accounts.models import AuditEntry, RefreshToken
from common.origin import request_from
from common.ownership import as_owner
from common.tenancy import operator, tenant
from tests.cast import PASSWORD, Person, make_person, session_of
from tests.rows import global_id

pytestmark = pytest.mark.django_db(transaction=True)

LOG = """query ($id: ID!, $after: String) { auditLog(organizationId: $id, first: 2, after: $after) {
  pageInfo { hasNextPage endCursor } edges { node { actor action target details } } } }"""


@pytest.fixture
def organization() -> UUID:
    """One with a log of five entries."""
    organization_id = uuid4()
    with operator():
        for number in range(1, 6):
            audit.record(organization_id, actor="user:1", action="test", target=f"thing:{number}", number=number)
    return organization_id


def tamper(*statements: str) -> None:
    """As somebody who has the database, and gets around its refusals."""
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE accounts_auditentry DISABLE TRIGGER append_only")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("ALTER TABLE accounts_auditentry ENABLE TRIGGER append_only")


def flaws(organization: UUID) -> list[tuple[int, str]]:
    with operator():
        return [(flaw.sequence, flaw.what) for flaw in audit.verify(organization)]


def test_a_log_that_nobody_has_touched_is_sound(organization: UUID, capsys: Any) -> None:
    assert flaws(organization) == []
    call_command("verify_audit_log")
    assert capsys.readouterr().out == "The audit log is as it was written (1 organization).\n"


ENTRY = "UPDATE accounts_auditentry SET "
PUT_BACK = """UPDATE accounts_audithead head SET sequence = {0}, hash = entry.hash FROM accounts_auditentry entry
    WHERE entry.organization_id = head.organization_id AND entry.sequence = {0}"""
ADDED = """INSERT INTO accounts_auditentry (id, organization_id, sequence, at, actor, action, target, address, details,
    previous_hash, hash) SELECT gen_random_uuid(), organization_id, {}, now(), actor, 'other', target, address, details, hash,
    hash FROM accounts_auditentry WHERE sequence = 5"""
BEYOND = "lies beyond the end of the log: it was put here, or the end put back"


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        ([ENTRY + "action = 'other' WHERE sequence = 3"], [(3, "was changed")]),
        ([ENTRY + "actor = 'user:2' WHERE sequence = 1"], [(1, "was changed")]),
        ([ENTRY + "at = at + interval '1 microsecond' WHERE sequence = 5"], [(5, "was changed")]),
        ([ENTRY + "details = '{\"number\": 2.5}' WHERE sequence = 2"], [(2, "was changed")]),
        ([ENTRY + "address = '10.0.0.1' WHERE sequence = 4"], [(4, "was changed")]),
        (["DELETE FROM accounts_auditentry WHERE sequence = 3"], [(3, "is missing")]),
        (["DELETE FROM accounts_auditentry WHERE sequence IN (2, 3)"], [(2, "to 3 are missing")]),
        (["DELETE FROM accounts_auditentry WHERE sequence = 1"], [(1, "is missing")]),
        (["DELETE FROM accounts_auditentry WHERE sequence = 5"], [(5, "is missing, with all after entry 4")]),
        (["DELETE FROM accounts_auditentry"], [(5, "is missing, with all after entry 0")]),
        (
            [ENTRY + f"sequence = {new} WHERE sequence = {old}" for old, new in ((2, 99), (3, 2), (99, 3))],
            [
                (2, "was changed"),
                (3, "was changed"),
                (4, "does not follow the one before it: one of them was put here"),
            ],
        ),
        (["DELETE FROM accounts_audithead"], [(5, "has no head to end at")]),
        ([PUT_BACK.format(3)], [(4, BEYOND)]),
        ([PUT_BACK.format(3), ENTRY + "action = 'other' WHERE sequence > 3"], [(4, BEYOND)]),
        ([f"UPDATE accounts_audithead SET sequence = 0, hash = '{audit.BEGINNING}'"], [(1, BEYOND)]),
        ([ADDED.format(900)], [(900, BEYOND)]),
    ],
)
def test_what_was_done_to_it_is_found(
    organization: UUID, statements: list[str], found: list[tuple[int, str]], capsys: Any
) -> None:
    tamper(*statements)
    assert flaws(organization) == found
    with pytest.raises(SystemExit) as ended:
        call_command("verify_audit_log", stdout=StringIO())
    assert ended.value.code == 1
    said = [f"organization {organization}, entry {sequence}: {what}" for sequence, what in found]
    assert capsys.readouterr().out.splitlines() == said


def test_an_entry_that_was_made_to_fit_its_own_hash_does_not_fit_its_neighbours(organization: UUID) -> None:
    with operator():
        entry = AuditEntry.objects.get(sequence=3)
    entry.action = "other"
    tamper(ENTRY + f"action = 'other', hash = '{audit.hash_of(entry)}' WHERE sequence = 3")
    assert flaws(organization) == [(4, "does not follow the one before it: one of them was put here")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts_auditentry SET action = 'other'",
        "DELETE FROM accounts_auditentry",
        "TRUNCATE accounts_auditentry",
        "DELETE FROM accounts_audithead",
    ],
)
def test_the_platform_itself_cannot_change_it(organization: UUID, statement: str) -> None:
    for role in ("platform_app", "platform_operator"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            change(role, statement)
    assert flaws(organization) == []


def change(role: str, statement: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {role}")
        cursor.execute(statement)


def as_the_owner(statement: str) -> None:
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_the_owner_is_refused_too(organization: UUID) -> None:
    for statement in ("UPDATE accounts_auditentry SET action = 'other'", "DELETE FROM accounts_auditentry"):
        with pytest.raises(ProgrammingError, match="the audit log is append-only"):
            as_the_owner(statement)
    assert flaws(organization) == []


def test_whoever_writes_at_once_writes_one_chain() -> None:
    organization_id = uuid4()

    def write(number: int) -> None:
        with operator():
            audit.record(organization_id, actor=f"user:{number}", action="test")
        connection.close()

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write, range(40)))
    assert flaws(organization_id) == []
    with operator():
        assert AuditEntry.objects.filter(organization_id=organization_id).count() == 40


def test_an_entry_goes_with_what_it_tells_of() -> None:
    organization_id = uuid4()

    def fail() -> None:
        with operator():
            audit.record(organization_id, actor="user:1", action="test")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with operator():
        assert not AuditEntry.objects.filter(organization_id=organization_id).exists()


@pytest.mark.parametrize(
    ("asked_from", "noted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        (f"fe80::1%{'zone' * 20}", "fe80::1"),  # longer than what the log has room for
        ("whoever", ""),
    ],
)
def test_an_entry_says_where_it_was_asked_from(asked_from: str, noted: str) -> None:
    organization_id = uuid4()
    with operator(), request_from(asked_from):
        audit.record(organization_id, actor="user:1", action="test")
    with operator():
        assert AuditEntry.objects.get(organization_id=organization_id).address == noted


def test_it_is_read_by_those_who_may_a_page_at_a_time() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    bob, vera = add(alice, "Bob", "MEMBER"), add(alice, "Vera", "VIEWER")
    with tenant(alice.principal):
        for number in range(3):
            audit.record(alice.organization.pk, actor="user:1", action="test", target=f"thing:{number}", n=number)
    first = alice.data(LOG, id=global_id(alice.organization))["auditLog"]
    assert [edge["node"]["target"] for edge in first["edges"]] == ["thing:2", "thing:1"]
    assert first["edges"][0]["node"] == {"actor": "user:1", "action": "test", "target": "thing:2", "details": {"n": 2}}
    rest = alice.data(LOG, id=global_id(alice.organization), after=first["pageInfo"]["endCursor"])["auditLog"]
    assert [edge["node"]["target"] for edge in rest["edges"]] == ["thing:0"]
    for person in (bob, vera):
        asked = person.ask(LOG, id=global_id(alice.organization))
        assert [error["extensions"]["code"] for error in asked["errors"]] == ["NOT_ALLOWED"]
    assert charlie.data(LOG, id=global_id(alice.organization))["auditLog"]["edges"] == []


def add(person: Person, name: str, role: Any) -> Person:
    return make_person(name, person.organization, role)


def test_of_an_organization_without_a_log_nothing_is_said(organization: UUID, capsys: Any) -> None:
    call_command("verify_audit_log", organization=organization)
    assert capsys.readouterr().out == "The audit log is as it was written (1 organization).\n"
    with pytest.raises(CommandError, match="There is no log of an organization") as refused:
        call_command("verify_audit_log", organization=uuid4())
    assert refused.value.returncode == 2


def test_what_is_appended_meanwhile_is_no_flaw(organization: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    hash_of, appended = audit.hash_of, threading.Event()

    def append() -> None:
        with operator():
            audit.record(organization, actor="user:1", action="test")
        connection.close()

    def hash_while_somebody_appends(entry: AuditEntry) -> str:
        if not appended.is_set():
            appended.set()
            writer = threading.Thread(target=append)
            writer.start()
            writer.join()
        return hash_of(entry)

    monkeypatch.setattr(audit, "hash_of", hash_while_somebody_appends)
    assert flaws(organization) == []
    with operator():
        assert AuditEntry.objects.filter(organization_id=organization).count() == 6


def test_what_becomes_of_sessions_and_accounts_is_in_the_log_of_the_platform() -> None:
    alice, bob = make_person("Alice"), make_person("Bob")
    hers, his = f"user:{alice.user.pk}", f"user:{bob.user.pk}"
    used = session_of(alice.user)
    tokens.rotate(used.refresh_token)
    with operator():
        RefreshToken.objects.exclude(used_at=None).update(used_at=F("used_at") - timedelta(minutes=1))
    for _ in range(2):  # the second time there is nothing left to end
        with pytest.raises(tokens.InvalidToken):
            tokens.rotate(used.refresh_token)
    session = session_of(alice.user)
    for _ in range(2):
        tokens.revoke(session.refresh_token)
    passwords.change_password(actor=alice.principal, current_password=PASSWORD, new_password="another long password")
    with operator():
        for verb in (users.sign_out_everywhere, users.lock_user, users.unlock_user):
            verb(actor=bob.principal, user=alice.user)
        log = AuditEntry.objects.filter(organization_id=audit.PLATFORM).order_by("sequence")
        seen = list(log.values_list("action", "actor", "target"))
    assert seen == [
        ("session.reuse", "nobody", hers),
        ("session.end", hers, ""),
        ("password.change", hers, ""),
        ("user.sign_out", his, hers),
        ("user.lock", his, hers),
        ("user.unlock", his, hers),
    ]
