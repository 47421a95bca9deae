"""What staff do in the admin is in the audit log, by ids, with who did it and from where; and an organization keeps an owner."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts import audit
from accounts.models import ApiKey, AuditEntry, Invitation, Membership, Organization, Role, User
from common.tenancy import operator
from tests.accounts.closed import fresh, log_of
from tests.cast import PASSWORD, Person, make_person
from tests.platform_site.history import make_history
from tests.rows import make_run

ROOT = "root@example.com"


@pytest.fixture
def admin(db: None) -> Client:
    client = Client(REMOTE_ADDR="192.0.2.44")
    client.force_login(User.objects.create_superuser(ROOT, PASSWORD))
    return client


def root() -> str:
    return f"user:{User.objects.get(email=ROOT).pk}"


def entries(organization_id: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """Each with its actor and address checked."""
    with operator():
        log = list(AuditEntry.objects.filter(organization_id=organization_id).order_by("sequence"))
        assert not log or list(audit.verify(organization_id)) == []
    assert {(entry.actor, entry.address) for entry in log} <= {(root(), "192.0.2.44")}
    assert "@" not in str([entry.details for entry in log])
    return [(entry.action, entry.target, entry.details) for entry in log]


def inline(*rows: dict[str, Any], initial: int = 0) -> dict[str, Any]:
    """The inlines' part of a form: `rows` of members, of which the first `initial` are there already, and no quota."""
    form = {"memberships-TOTAL_FORMS": len(rows), "memberships-INITIAL_FORMS": initial}
    form |= {"quota-TOTAL_FORMS": 0, "quota-INITIAL_FORMS": 0}
    return form | {
        f"memberships-{number}-{name}": value for number, row in enumerate(rows) for name, value in row.items()
    }


def save(admin: Client, row: Organization | User, *members: dict[str, Any], initial: int = 0, **fields: Any) -> Any:
    form = {"name": row.name, **({"slug": row.slug} if isinstance(row, Organization) else {"email": row.email})}
    page = f"/admin/accounts/{row._meta.model_name}/{row.pk}/change/"
    return admin.post(page, {**form, **fields, **inline(*members, initial=initial)})


def membership(person: Person, role: Role | None = None, **more: Any) -> dict[str, Any]:
    """The inline's row of somebody who is a member, unchanged but for their role."""
    with operator():
        row = Membership.objects.get(user=person.user, organization=person.organization)
    return {"id": row.pk, "organization": row.organization_id, "user": row.user_id, "role": role or row.role, **more}


def press(admin: Client, page: str, button: str, *rows: Any) -> list[str]:
    chosen = {"action": button, "_selected_action": [str(row.pk) for row in rows], "confirmed": "yes"}
    answer = admin.post(f"/admin/{page}/", chosen, follow=True)
    assert answer.status_code == 200
    return [str(message) for message in answer.context["messages"]]


def roles(organization: Organization) -> dict[str, str]:
    with operator():
        return dict(Membership.objects.filter(organization=organization).values_list("user__name", "role"))


def test_a_user_is_made_changed_and_made_staff(admin: Client) -> None:
    passwords = {"password1": "another long password", "password2": "another long password"}
    added = admin.post(
        "/admin/accounts/user/add/", {"email": "new@example.com", "name": "New", **passwords, **inline()}
    )
    assert added.status_code == 302
    user = User.objects.get(email="new@example.com")
    assert save(admin, user, is_staff="on").status_code == 302
    assert save(admin, user, is_staff="on").status_code == 302  # changes nothing
    assert admin.post(f"/admin/accounts/user/{user.pk}/password/", passwords).status_code == 302
    him, flags = f"user:{user.pk}", {"staff": 1, "superuser": 0}
    assert entries(audit.PLATFORM) == [
        ("user.create", him, {}),
        ("user.change", him, {"fields": "Is staff", **flags}),
        ("user.change", him, {"fields": "password", **flags}),
    ]


def test_another_address_is_one_that_nobody_has_verified(admin: Client, alice: Person) -> None:
    User.objects.filter(pk=alice.user.pk).update(email_verified=True)
    assert save(admin, alice.user, name="Alice", email_verified="on").status_code == 302
    assert User.objects.get(pk=alice.user.pk).email_verified
    assert save(admin, alice.user, email="alice@new.example", email_verified="on").status_code == 302
    changed = User.objects.get(pk=alice.user.pk)
    assert (changed.email, changed.email_verified) == ("alice@new.example", False)


def test_an_organization_is_made_and_renamed(admin: Client, alice: Person) -> None:
    assert admin.post("/admin/accounts/organization/add/", {"name": "N", "slug": "n", **inline()}).status_code == 302
    with operator():
        made = Organization.objects.get(slug="n")
    assert entries(made.pk) == [("organization.create", f"organization:{made.pk}", {})]
    answer = save(admin, alice.organization, membership(alice), initial=1, name="Renamed")
    assert answer.status_code == 302
    its = f"organization:{alice.organization.pk}"
    assert entries(alice.organization.pk) == [("organization.change", its, {"fields": "Name"})]


@pytest.mark.parametrize("page", ["organization", "user"])
def test_members_are_added_changed_and_removed(admin: Client, alice: Person, charlie: Person, page: str) -> None:
    its, him = alice.organization, f"user:{charlie.user.pk}"
    joined = Person(charlie.user, its, Role.VIEWER, charlie.token)

    def save_with(role: Role | None, **more: Any) -> Any:
        with operator():
            is_there = Membership.objects.filter(user=charlie.user, organization=its).exists()
        his = (
            membership(joined, role, **more)
            if is_there
            else {"organization": its.pk, "user": charlie.user.pk, "role": role}
        )
        if page == "organization":
            return save(admin, its, membership(alice), his, initial=1 + is_there)
        return save(admin, charlie.user, membership(charlie), his, initial=1 + is_there)

    assert save_with(Role.VIEWER).status_code == 302
    assert save_with(Role.ADMIN).status_code == 302
    with operator():
        for number in range(2):
            person = (alice, charlie)[number]
            ApiKey.objects.create(
                organization=its, name="k", prefix="ftk_", secret_sha256=str(number), created_by=person.user
            )
    assert save_with(None, DELETE="on").status_code == 302
    with operator():
        revoked = ApiKey.objects.get(created_by=charlie.user, revoked_at__isnull=False).pk
    assert entries(its.pk) == [
        ("member.add", him, {"role": "VIEWER"}),
        ("member.change_role", him, {"after": "ADMIN"}),
        ("key.revoke", f"key:{revoked}", {}),
        ("member.remove", him, {}),
    ]
    assert roles(its) == {"Alice": "OWNER"}


@pytest.mark.parametrize("page", ["organization", "user"])
@pytest.mark.parametrize("change", [{"role": "ADMIN"}, {"DELETE": "on"}])
def test_the_last_owner_stays_one(admin: Client, alice: Person, bob: Person, page: str, change: dict[str, Any]) -> None:
    before, his = roles(alice.organization), membership(bob)
    hers = {**membership(alice), **change}
    rows = (hers, his) if page == "organization" else (hers,)
    row = alice.organization if page == "organization" else alice.user
    answer = save(admin, row, *rows, initial=len(rows))
    assert answer.status_code == 200
    assert "&quot;Alice&#x27;s&quot; keeps an owner: make somebody else one first." in answer.content.decode()
    assert roles(alice.organization) == before
    assert entries(alice.organization.pk) == []


def test_an_owner_may_go_where_another_one_stays_or_comes(admin: Client, alice: Person, bob: Person) -> None:
    hers, his = membership(alice, Role.VIEWER), membership(bob, Role.OWNER)
    assert save(admin, alice.organization, hers, his, initial=2).status_code == 302
    assert roles(alice.organization) == {"Alice": "VIEWER", "Bob": "OWNER"}
    with operator():
        Membership.objects.filter(user=alice.user).update(role=Role.OWNER)
    assert save(admin, bob.user, membership(bob, DELETE="on"), initial=1).status_code == 302
    assert roles(alice.organization) == {"Alice": "OWNER"}


def test_a_membership_is_not_made_somebody_elses(admin: Client, alice: Person, charlie: Person) -> None:
    moved = {**membership(alice), "user": charlie.user.pk}
    save(admin, alice.organization, moved, initial=1)
    assert roles(alice.organization) == {"Alice": "OWNER"}


def test_keys_and_invitations_are_deleted(admin: Client, alice: Person) -> None:
    make_history(alice)
    with operator():
        before = AuditEntry.objects.filter(organization_id=alice.organization.pk).count()
        key, invitation = ApiKey.objects.get(), Invitation.objects.get()
    press_delete = {"action": "delete_selected", "_selected_action": [str(invitation.pk)], "post": "yes"}
    assert admin.post(f"/admin/accounts/apikey/{key.pk}/delete/", {"post": "yes"}).status_code == 302
    assert admin.post("/admin/accounts/invitation/", press_delete).status_code == 302
    with operator():
        assert (ApiKey.objects.count(), Invitation.objects.count()) == (0, 0)
    assert log_of(alice.organization.pk)[before:] == [
        ("key.delete", root(), f"key:{key.pk}"),
        ("invitation.delete", root(), f"invitation:{invitation.pk}"),
    ]


def test_runs_are_cancelled_and_requeued(admin: Client, alice: Person) -> None:
    run = make_run(alice)
    assert press(admin, "training/trainingrun", "cancel_jobs", run) == [f"{run.pk.hex[:8]} First: cancelled"]
    assert entries(alice.organization.pk) == [("run.cancel", f"run:{run.pk}", {})]


def test_an_organization_is_closed_and_restored_and_never_deleted_at_once(admin: Client, alice: Person) -> None:
    organization = alice.organization
    assert admin.post(f"/admin/accounts/organization/{organization.pk}/delete/", {"post": "yes"}).status_code == 403
    assert press(admin, "accounts/organization", "close", organization) == [
        "Alice's: will be deleted at the end of the grace period."
    ]
    assert fresh(organization).status == "CLOSING"
    assert press(admin, "accounts/organization", "close", organization) == [
        "Alice's: This organization is about to be deleted. To go on, have an owner send restoreOrganization."
    ]
    assert press(admin, "accounts/organization", "restore", organization) == ["Alice's: restored."]
    assert fresh(organization).status == "ACTIVE"
    its = f"organization:{organization.pk}"
    assert entries(organization.pk) == [("organization.close", its, {}), ("organization.restore", its, {})]


def test_an_account_is_closed_and_restored_and_never_deleted_at_once(admin: Client, alice: Person, bob: Person) -> None:
    dora = make_person("Dora")
    assert admin.post(f"/admin/accounts/user/{dora.user.pk}/delete/", {"post": "yes"}).status_code == 403
    assert press(admin, "accounts/user", "close", dora.user) == [
        "dora@example.com: will be deleted at the end of the grace period."
    ]
    assert (User.objects.get(pk=dora.user.pk).closes_at is not None, fresh(dora.organization).status) == (
        True,
        "CLOSING",
    )
    assert press(admin, "accounts/user", "restore", dora.user) == ["dora@example.com: restored."]
    assert (User.objects.get(pk=dora.user.pk).closes_at, fresh(dora.organization).status) == (None, "ACTIVE")
    her = f"user:{dora.user.pk}"
    assert entries(audit.PLATFORM) == [("account.close", her, {}), ("account.restore", her, {})]
    (refused,) = press(admin, "accounts/user", "close", alice.user)
    assert "without an owner" in refused
    assert User.objects.get(pk=alice.user.pk).closes_at is None


def test_those_that_are_about_to_be_deleted_are_filtered(admin: Client, alice: Person, charlie: Person) -> None:
    press(admin, "accounts/organization", "close", alice.organization)
    for answer, its in [("yes", alice.organization), ("no", charlie.organization)]:
        page = admin.get("/admin/accounts/organization/", {"closing": answer})
        assert list(page.context["cl"].result_list) == [its]


def test_staff_who_are_no_superusers_close_nothing(client: Client, alice: Person) -> None:
    from django.contrib.auth.models import Permission

    clerk = User.objects.create_user("clerk@example.com", PASSWORD, is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(content_type__app_label="accounts"))
    client.force_login(clerk)
    press(client, "accounts/organization", "close", alice.organization)
    press(client, "accounts/user", "close", alice.user)
    assert fresh(alice.organization).closes_at is None
    assert User.objects.get(pk=alice.user.pk).closes_at is None
