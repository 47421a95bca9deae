"""An account that is to be deleted: signed out at once, restored by whoever logs in, and gone after the grace period."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.utils import timezone

from accounts import audit, mailed_tokens
from accounts.actions import identity, keys, organizations
from accounts.actions.closing import close_account
from accounts.credentials import WrongCredentials
from accounts.erasing import erase_what_is_over
from accounts.member_forms import _others
from accounts.models import ApiKey, Invitation, MailedToken, Membership, Organization, RefreshToken, Role, User
from accounts.principals import principal_of
from accounts.tokens import InvalidToken
from common.errors import Invalid
from common.models import OutboxMessage
from common.tenancy import operator, tenant
from datasets.models import Dataset
from tests.accounts.closed import delete, delete_account, fresh, let_the_grace_period_pass, log_of, restore
from tests.accounts.locks import in_another_thread
from tests.accounts.mailbox import mails_to, subjects_to
from tests.cast import PASSWORD, Person, make_person, session_of
from tests.rows import global_id, make_dataset

DONE = {"__typename": "Done", "ok": True}


def code(answer: dict[str, Any]) -> str:
    ((message),) = answer["messages"]
    return str(message["code"])


def closes_at(person: Person) -> Any:
    with operator():
        return User.objects.get(pk=person.user.pk).closes_at


def log_in(person: Person) -> None:
    person.token = identity.log_in(email=person.user.email, password=PASSWORD).access_token


def is_signed_in(token: str) -> bool:
    try:
        return principal_of(token).user_id is not None
    except InvalidToken:
        return False


def members(organization: Organization) -> list[str]:
    with operator():
        return sorted(Membership.objects.filter(organization=organization).values_list("user__name", flat=True))


def test_it_ends_all_sessions_and_closes_what_nobody_else_belongs_to(alice: Person, charlie: Person) -> None:
    elsewhere = session_of(alice.user).access_token
    assert delete_account(alice) == DONE
    assert timedelta(days=6.99) < closes_at(alice) - timezone.now() <= timedelta(days=7)
    assert fresh(alice.organization).closes_at == closes_at(alice)
    assert [is_signed_in(token) for token in (alice.token, elsewhere, charlie.token)] == [False, False, True]
    assert fresh(charlie.organization).closes_at is None
    mail = mails_to(alice.user.email)[-1]
    assert mail.subject == "Your account is about to be deleted"
    assert f"{closes_at(alice):%Y-%m-%d} at {closes_at(alice):%H:%M} UTC" in mail.body
    hers = f"user:{alice.user.pk}"
    assert log_of(audit.PLATFORM) == [("account.close", hers, hers)]
    assert [action for action, _, _ in log_of(alice.organization.pk)] == ["organization.close"]


def test_the_password_is_asked_once_more(alice: Person) -> None:
    assert code(delete_account(alice, "not her password")) == "WRONG_CREDENTIALS"
    assert (closes_at(alice), fresh(alice.organization).closes_at) == (None, None)
    assert is_signed_in(alice.token)


def test_the_request_that_closes_it_does_nothing_more(alice: Person) -> None:
    document = f"""mutation {{ closed: deleteAccount(input: {{password: "{PASSWORD}"}}) {{ __typename }}
      more: startUpload(input: {{fileName: "f", sizeBytes: 1}}) {{ ... on OperationInfo {{ messages {{ code }} }} }} }}"""
    answer = alice.data(document)
    assert answer == {"closed": {"__typename": "Done"}, "more": {"messages": [{"code": "UNAUTHENTICATED"}]}}


def test_no_key_deletes_an_account(alice: Person) -> None:
    with tenant(alice.principal):
        alice.token = keys.create_key(
            actor=alice.principal, organization=alice.organization, name="CI", role=Role.OWNER, expires_at=None
        ).secret
    assert code(delete_account(alice)) == "UNAUTHENTICATED"
    assert closes_at(alice) is None


def test_the_last_owner_of_others_is_refused_and_told_of_what(alice: Person, bob: Person) -> None:
    answer = delete_account(alice)
    assert code(answer) == "LAST_OWNER"
    assert '"Alice\'s"' in answer["messages"][0]["message"]
    assert (closes_at(alice), fresh(alice.organization).closes_at) == (None, None)
    assert is_signed_in(alice.token)
    with operator():
        Membership.objects.filter(user=bob.user).update(role=Role.OWNER)
    assert delete_account(alice) == DONE
    assert fresh(alice.organization).closes_at is None


def test_who_is_to_go_counts_as_no_owner(alice: Person) -> None:
    """Or the organization would be left without one."""
    bob = make_person("Bob", alice.organization)
    assert delete_account(alice) == DONE
    assert code(delete_account(bob)) == "LAST_OWNER"
    leave = """mutation ($o: ID!, $u: ID!) { left: removeMember(input: {organizationId: $o, userId: $u}) {
      ... on OperationInfo { messages { code } } } }"""
    answer = bob.data(leave, o=global_id(bob.organization), u=global_id(bob.user))
    assert answer["left"]["messages"] == [{"code": "LAST_OWNER"}]
    assert members(alice.organization) == ["Alice", "Bob"]


def close(bob: Person) -> None:
    with operator():
        close_account(actor=bob.principal, user=bob.user)


def leave(bob: Person) -> None:
    with tenant(bob.principal):
        organizations.remove_member(actor=bob.principal, organization=bob.organization, user_id=bob.user.pk)


def step_down(bob: Person) -> None:
    with tenant(bob.principal):
        organizations.change_member_role(
            actor=bob.principal, organization=bob.organization, user_id=bob.user.pk, role=Role.MEMBER
        )


def taken_away_in_the_admin(bob: Person) -> None:
    with operator():
        if not _others(bob.organization.pk, [Membership.objects.get(user=bob.user)]):
            raise Invalid("An owner is kept.", code="LAST_OWNER")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("go", [close, leave, step_down, taken_away_in_the_admin])
def test_of_two_owners_who_go_at_once_the_second_is_the_last(go: Callable[[Person], None]) -> None:
    alice = make_person("Alice")
    bob = make_person("Bob", alice.organization)
    make_person("Vera", alice.organization, Role.VIEWER)
    with in_another_thread() as begin:
        with operator():
            close_account(actor=alice.principal, user=alice.user)
            going = begin(lambda: go(bob))
        with pytest.raises(Invalid) as refused:
            going.result(timeout=10)
    assert refused.value.code == "LAST_OWNER"
    assert (closes_at(bob), members(alice.organization)) == (None, ["Alice", "Bob", "Vera"])


def test_an_organization_that_is_closing_anyway_needs_no_owner(alice: Person, bob: Person) -> None:
    delete(alice)
    before = fresh(alice.organization).closes_at
    assert delete_account(alice) == DONE
    assert fresh(alice.organization).closes_at == before


def test_keys_and_invitations_that_they_made_end(alice: Person) -> None:
    bob = make_person("Bob", alice.organization)
    with tenant(alice.principal):
        for person in (alice, bob):
            keys.create_key(
                actor=person.principal, organization=alice.organization, name="CI", role=Role.MEMBER, expires_at=None
            )
            organizations.invite_member(
                actor=person.principal,
                organization=alice.organization,
                email=f"friend-of-{person.user.email}",
                role=Role.MEMBER,
            )
    delete_account(alice)
    with operator():
        assert list(ApiKey.objects.working().values_list("created_by__name", flat=True)) == ["Bob"]
        assert list(Invitation.objects.values_list("invited_by__name", flat=True)) == ["Bob"]


def test_an_operators_account_is_not_deleted(alice: Person) -> None:
    with operator():
        User.objects.filter(pk=alice.user.pk).update(is_staff=True)
    assert code(delete_account(alice)) == "STAFF_ACCOUNT"
    assert closes_at(alice) is None


def test_whoever_logs_in_has_it_restored_with_what_closed_with_it(alice: Person) -> None:
    with operator():
        other = Organization.objects.create(name="Other", slug="other")
        Membership.objects.create(organization=other, user=alice.user, role=Role.OWNER)
    delete(alice)  # a day before, and by itself
    with operator():
        Organization.objects.filter(pk=alice.organization.pk).update(closes_at=timezone.now() + timedelta(days=6))
    delete_account(alice)
    assert fresh(other).closes_at == closes_at(alice)
    log_in(alice)
    assert closes_at(alice) is None
    assert (fresh(other).status, fresh(alice.organization).status) == ("ACTIVE", "CLOSING")
    assert subjects_to(alice.user.email)[-2:] == [
        '"Other" is not deleted after all',
        "Your account is not deleted after all",
    ]
    hers = f"user:{alice.user.pk}"
    assert log_of(audit.PLATFORM) == [
        ("account.close", hers, hers),
        ("account.restore", hers, hers),
        ("session.begin", hers, ""),
    ]
    assert restore(alice)["status"] == "ACTIVE"


def test_a_wrong_password_restores_nothing(alice: Person) -> None:
    delete_account(alice)
    with pytest.raises(WrongCredentials):
        identity.log_in(email=alice.user.email, password="not her password")
    assert closes_at(alice) is not None


def test_when_it_is_over_nobody_logs_in_any_more(alice: Person) -> None:
    delete_account(alice)
    let_the_grace_period_pass()
    with pytest.raises(WrongCredentials):
        log_in(alice)
    assert closes_at(alice) is not None


@pytest.mark.django_db(transaction=True)
def test_nothing_of_it_is_left_but_its_id_in_the_log() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    bob = make_person("Bob", alice.organization)
    theirs = Person(alice.user, charlie.organization, Role.MEMBER, alice.token)
    with operator():
        Membership.objects.create(organization=charlie.organization, user=alice.user, role=Role.MEMBER)
        mailed_tokens.issue(MailedToken.Purpose.RESET_PASSWORD, alice.user.email)
        LogEntry.objects.log_actions(charlie.user.pk, [alice.user], CHANGE, "Locked", single_object=True)
        Invitation.objects.create(
            organization=charlie.organization,
            email=alice.user.email,
            role="MEMBER",
            expires_at=timezone.now(),
            accepted_at=timezone.now(),
        )
    made = make_dataset(theirs)
    assert delete_account(alice) == DONE
    erase_what_is_over()
    assert closes_at(alice) is not None
    let_the_grace_period_pass()
    erase_what_is_over()
    with operator():
        assert sorted(User.objects.values_list("name", flat=True)) == ["Bob", "Charlie"]
        assert Dataset.objects.get(pk=made.pk).created_by is None
        assert not RefreshToken.objects.filter(user_id=alice.user.pk).exists()
        assert not MailedToken.objects.filter(address=alice.user.email).exists()
        assert not OutboxMessage.objects.filter(recipient=alice.user.email).exists()
        assert not Invitation.objects.filter(email=alice.user.email).exists()
        assert not LogEntry.objects.exists()
    assert members(charlie.organization) == ["Charlie"] and members(alice.organization) == ["Bob"]
    assert log_of(audit.PLATFORM)[-1] == ("account.delete", "keeper", f"user:{alice.user.pk}")
    assert is_signed_in(bob.token)


@pytest.mark.django_db(transaction=True)
def test_its_own_organization_goes_with_it() -> None:
    alice = make_person("Alice")
    make_dataset(alice)
    delete_account(alice)
    let_the_grace_period_pass()
    erase_what_is_over()
    with operator():
        counts = [model.objects.count() for model in (User, Organization, Membership, Dataset)]
    assert counts == [0, 0, 0, 0]


def test_its_address_may_sign_up_again(alice: Person) -> None:
    delete_account(alice)
    let_the_grace_period_pass()
    with pytest.raises(identity.EmailTaken):
        identity.sign_up(email=alice.user.email, password=PASSWORD)
    erase_what_is_over()
    assert identity.sign_up(email=alice.user.email, password=PASSWORD) is not None
