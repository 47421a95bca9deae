"""Operators lock an account, unlock it, and sign its user out everywhere: by an action, and by the admin's buttons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts import tokens
from accounts.actions import identity, keys, organizations, passwords, users
from accounts.credentials import WrongCredentials
from accounts.models import ApiKey, Invitation, Role, User
from accounts.principals import principal_of
from common.errors import Invalid, NotSignedIn
from common.tenancy import Principal, operator, tenant
from tests.accounts.locks import in_another_thread
from tests.accounts.mailbox import mails_to, token_in
from tests.cast import PASSWORD, Person, make_person, session_of


@pytest.fixture
def admin(db: None, client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root@example.com", PASSWORD))
    return client


def press(admin: Client, button: str, *people: User) -> list[str]:
    """What the page says then."""
    chosen = {"action": button, "_selected_action": [str(person.pk) for person in people], "confirmed": "yes"}
    page = admin.post("/admin/accounts/user/", chosen, follow=True)
    assert page.status_code == 200
    return [str(message) for message in page.context["messages"]]


def is_live(person: Person) -> bool:
    try:
        return principal_of(person.token).user_id == person.user.pk
    except tokens.InvalidToken:
        return False


def test_a_locked_account_is_out_at_once_and_stays_out(alice: Person, bob: Person) -> None:
    session = session_of(alice.user)
    with operator():
        users.lock_user(actor=bob.principal, user=alice.user)
    assert (is_live(alice), is_live(bob)) == (False, True)
    with pytest.raises(tokens.InvalidToken):
        tokens.rotate(session.refresh_token)
    with pytest.raises(WrongCredentials):
        identity.log_in(email="alice@example.com", password=PASSWORD)


def make_key(person: Person) -> str:
    with tenant(person.principal):
        made = keys.create_key(
            actor=person.principal, organization=person.organization, name="CI", role=Role.VIEWER, expires_at=None
        )
    return made.secret


def works(secret: str) -> bool:
    try:
        return principal_of(secret).key_id is not None
    except tokens.InvalidToken:
        return False


def test_the_keys_and_invitations_of_a_locked_account_are_no_way_back_in(alice: Person) -> None:
    bob = make_person("Bob", alice.organization)
    hers, his = make_key(alice), make_key(bob)
    with tenant(alice.principal):
        organizations.invite_member(
            actor=alice.principal, organization=alice.organization, email="eve@example.com", role=Role.OWNER
        )
    with operator():
        users.lock_user(actor=bob.principal, user=alice.user)
        users.unlock_user(actor=bob.principal, user=alice.user)
    assert (works(hers), works(his)) == (False, True)
    with operator():
        assert not Invitation.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_key_that_is_being_made_meanwhile_is_not_made() -> None:
    alice = make_person("Alice")
    with in_another_thread() as begin:
        with operator():
            users.lock_user(actor=Principal(user_id=uuid4()), user=alice.user)
            making = begin(lambda: make_key(alice))
        with pytest.raises(NotSignedIn):
            making.result(timeout=10)
    with operator():
        assert not ApiKey.objects.exists()


def test_an_unlocked_account_may_log_in_and_its_old_sessions_stay_over(alice: Person, bob: Person) -> None:
    with operator():
        users.lock_user(actor=bob.principal, user=alice.user)
        users.unlock_user(actor=bob.principal, user=alice.user)
    assert not is_live(alice)
    alice.token = identity.log_in(email="alice@example.com", password=PASSWORD).access_token
    assert is_live(alice)


def test_who_is_signed_out_everywhere_may_log_in(alice: Person, bob: Person) -> None:
    with operator():
        users.sign_out_everywhere(actor=bob.principal, user=alice.user)
    assert (is_live(alice), is_live(bob)) == (False, True)
    alice.token = identity.log_in(email="alice@example.com", password=PASSWORD).access_token
    assert is_live(alice)


@pytest.mark.parametrize("action", [users.lock_user, users.sign_out_everywhere])
def test_it_ends_the_sessions_in_the_admin_too(
    admin: Client, alice: Person, bob: Person, action: Callable[..., None]
) -> None:
    User.objects.filter(pk=alice.user.pk).update(is_staff=True)
    clerk = Client()
    clerk.force_login(alice.user)
    assert clerk.get("/admin/").status_code == 200
    with operator():
        action(actor=bob.principal, user=alice.user)
        users.unlock_user(actor=bob.principal, user=alice.user)
    assert clerk.get("/admin/").status_code == 302
    assert admin.get("/admin/").status_code == 200, "another's"


def test_nobody_locks_themselves_out(alice: Person) -> None:
    with operator(), pytest.raises(Invalid, match="somebody else has to lock your account"):
        users.lock_user(actor=alice.principal, user=alice.user)
    assert is_live(alice)
    assert User.objects.get().is_active


def test_the_buttons(admin: Client, alice: Person, bob: Person) -> None:
    assert press(admin, "lock", alice.user) == ["alice@example.com: locked."]
    assert (User.objects.get(pk=alice.user.pk).is_active, is_live(alice), is_live(bob)) == (False, False, True)
    assert press(admin, "unlock", alice.user) == ["alice@example.com: unlocked."]
    assert User.objects.get(pk=alice.user.pk).is_active
    assert press(admin, "sign_out", bob.user) == ["bob@example.com: signed out everywhere."]
    assert not is_live(bob)


def test_the_button_does_not_lock_whoever_presses_it(admin: Client) -> None:
    me = User.objects.get(email="root@example.com")
    assert press(admin, "lock", me) == ["root@example.com: This is you: somebody else has to lock your account."]
    assert User.objects.get(pk=me.pk).is_active


def test_staff_who_are_not_superusers_have_no_such_buttons(client: Client, alice: Person) -> None:
    clerk = User.objects.create_user("clerk@example.com", PASSWORD, is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_user", "change_user"]))
    client.force_login(clerk)
    press(client, "lock", alice.user)
    assert User.objects.get(pk=alice.user.pk).is_active
    assert is_live(alice)


def test_whether_an_account_is_locked_is_no_checkbox(admin: Client, alice: Person) -> None:
    """It would leave the sessions for whenever the account is unlocked."""
    page: Any = admin.get(f"/admin/accounts/user/{alice.user.pk}/change/")
    assert page.status_code == 200
    assert "is_active" not in page.context["adminform"].form.fields


def test_a_password_that_an_operator_sets_ends_the_sessions(admin: Client, alice: Person, bob: Person) -> None:
    chosen = {"password1": "another long password", "password2": "another long password"}
    answer = admin.post(f"/admin/accounts/user/{alice.user.pk}/password/", chosen)
    assert answer.status_code == 302
    assert User.objects.get(pk=alice.user.pk).check_password("another long password")
    assert (is_live(alice), is_live(bob)) == (False, True)


@pytest.mark.parametrize("by", ["a lock", "a password"])
def test_a_reset_that_waits_in_a_mail_ends_with_what_an_operator_does(admin: Client, alice: Person, by: str) -> None:
    """Whoever could read the mailbox for a moment would have the account as soon as it is unlocked."""
    passwords.request_password_reset(email=alice.user.email)
    token = token_in(mails_to(alice.user.email)[-1])
    if by == "a lock":
        press(admin, "lock", alice.user)
        press(admin, "unlock", alice.user)
    else:
        chosen = {"password1": "another long password", "password2": "another long password"}
        assert admin.post(f"/admin/accounts/user/{alice.user.pk}/password/", chosen).status_code == 302
    before = User.objects.get(pk=alice.user.pk).password
    with pytest.raises(tokens.InvalidToken):
        passwords.reset_password(token=token, new_password="yet another password")
    assert User.objects.get(pk=alice.user.pk).password == before


@pytest.mark.django_db(transaction=True)
def test_a_reset_that_is_asked_for_beside_a_lock_is_not_mailed() -> None:
    alice = make_person("Alice")
    with in_another_thread() as begin:
        with operator():
            users.lock_user(actor=Principal(user_id=uuid4()), user=alice.user)
            asking = begin(lambda: passwords.request_password_reset(email=alice.user.email))
        asking.result(timeout=10)
    assert mails_to(alice.user.email) == []


@pytest.mark.django_db(transaction=True)
def test_a_reset_beside_a_lock_comes_to_nothing() -> None:
    """Both want the user's row first: with the token first each would wait for the other."""
    alice = make_person("Alice")
    passwords.request_password_reset(email=alice.user.email)
    token = token_in(mails_to(alice.user.email)[-1])
    before = User.objects.get(pk=alice.user.pk).password
    with in_another_thread() as begin:
        with operator():
            tokens.hold(User.objects.filter(pk=alice.user.pk))
            resetting = begin(lambda: passwords.reset_password(token=token, new_password="yet another password"))
            users.lock_user(actor=Principal(user_id=uuid4()), user=alice.user)
        with pytest.raises(tokens.InvalidToken):
            resetting.result(timeout=10)
    after = User.objects.get(pk=alice.user.pk)
    assert (after.is_active, after.password) == (False, before)


def test_staff_who_may_change_users_become_no_superusers(admin: Client, client: Client, alice: Person) -> None:
    staff = User.objects.create_user("staff@example.com", PASSWORD, is_staff=True)
    staff.user_permissions.add(*Permission.objects.filter(codename__in=["change_user", "view_user", "delete_user"]))
    root = User.objects.get(email="root@example.com")
    client.force_login(staff)
    passwords = {"password1": "another long password", "password2": "another long password"}
    assert client.post(f"/admin/accounts/user/{root.pk}/password/", passwords).status_code == 403
    assert client.post(f"/admin/accounts/user/{root.pk}/change/", {"email": "x@example.com"}).status_code == 403
    assert client.post(f"/admin/accounts/user/{root.pk}/delete/", {"post": "yes"}).status_code == 403
    colleague = User.objects.create_user("colleague@example.com", PASSWORD, is_staff=True)
    assert client.post(f"/admin/accounts/user/{colleague.pk}/password/", passwords).status_code == 403
    assert client.post(f"/admin/accounts/user/{colleague.pk}/change/", {"email": "x@example.com"}).status_code == 403
    assert User.objects.get(pk=colleague.pk).check_password(PASSWORD)
    form = {"email": "staff@example.com", "name": "Staff", "is_staff": "on", "is_superuser": "on"}
    inline = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
    assert client.post(f"/admin/accounts/user/{staff.pk}/change/", {**form, **inline}).status_code == 302
    staff.refresh_from_db()
    assert (staff.name, staff.is_superuser) == ("Staff", False)
    assert User.objects.get(pk=root.pk).check_password(PASSWORD)
